"""A space with two proxies, two methods and final runs, for tests of planning."""

SPACE = {
    "trial": {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}},
    "cells": {"proxy": ["digits", "photos"], "method": ["proxy", "degan"]},
    "when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 50]}}}],
    "finals": {"seeds": [1, 2], "combine": None},
}
