"""The bench for choosing without true data: students whose logits are recorded once, and criteria judged on them.

`record` trains and records, `judge` judges the criteria of `criteria` in seconds, `combined` distils students of
several generators that a criterion chose.
"""
