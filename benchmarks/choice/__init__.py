"""The bench for choosing without true data: students whose logits are recorded once, and criteria judged on them.

`record` trains and records, `probe` asks the kept networks once more, `judge` judges the criteria of `criteria` in
seconds, `together` several students and several criteria; `combined` distils students of several generators that a
criterion chose.
"""
