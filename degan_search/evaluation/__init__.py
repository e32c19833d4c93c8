"""Finished trials measured: accuracy on true images, agreement across trials, relatedness of proxies."""
