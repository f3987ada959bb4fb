"""Ways to compute attention side by side, how near and how fast: what `wan bench attention` runs.

Knows ops, no model. `inputs` makes or reads q, k and v, `contenders` are the ways, `accuracy` judges them against
float64, `measure` runs the whole and makes rows.
"""
