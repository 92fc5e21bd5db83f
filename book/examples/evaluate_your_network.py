"""Evaluate a network of your own: train a small one on digits, measure it.

Replace `model` and `test` by yours: any network from images to logits, images
with pixels in [0, 1] and labels. It takes seconds; AutoAttack, most of them.
"""

import torch
from torch import nn

from widemin import attacks, data, evaluation, training

torch.manual_seed(0)
train, test = data.load("digits"), data.load("digits", "test", size=100)
layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
model = nn.Sequential(*layers)
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

natural, worst = (report.accuracy[k][0] for k in ("natural", "worst case"))
print(f"\nRight without an attack: {natural:.0%}; under all: {worst:.0%}.")
caught = [sign.name for sign in report.signs if sign.masked]
print(f"Signs of masked gradients: {', '.join(caught) or 'none'}.")
