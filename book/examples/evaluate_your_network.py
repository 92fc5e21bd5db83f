"""Evaluate a network of your own: train a small one on digits, measure it in one call.

Replace `model`, `x` and `y` by yours: any network from images to logits, images with
pixels in [0, 1] and labels. With AutoAttack (the extra `attacks`) it takes seconds.
"""

import torch
from torch import nn

from widemin import attacks, data, evaluation, training

torch.manual_seed(0)
train, test = data.load("digits", "train"), data.load("digits", "test", size=100)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
training.fit(
    model,
    torch.optim.SGD(model.parameters(), lr=0.1),
    train.x,
    train.y,
    epochs=20,
    batch_size=32,
    generator=torch.Generator().manual_seed(0),
)

report = evaluation.report(model, test.x, test.y, attacks.Linf(0.1))
print(report)

natural, worst = (report.accuracy[name][0] for name in ("natural", "worst case"))
print(f"\nRight without an attack: {natural:.0%}; under all attacks: {worst:.0%}.")
caught = [sign.name for sign in report.signs if sign.masked]
print(f"Signs of masked gradients: {', '.join(caught) or 'none'}.")
