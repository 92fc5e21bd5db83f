"""Find masked gradients: a network, and the same with its logits times 100.

Both give every image the same class, so they are equally robust. The second is
so sure of itself that float32 rounds its gradient to zero on most images, which
FGSM leaves alone. `signs` compares numbers that agree where gradients are sound.
"""

import torch
from torch import nn

from widemin import attacks, data, evaluation, training

torch.manual_seed(0)
draws = torch.Generator().manual_seed(0)
train, test = data.load("digits"), data.load("digits", "test", size=200)
layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
sound = nn.Sequential(*layers)
optimizer, options = training.SGD(sound.parameters(), lr=0.1), {"epochs": 10}
options |= {"batch_size": 32, "generator": draws}
training.fit(sound, optimizer, train.x, train.y, **options)


class Sure(nn.Module):
    """The same answers, a hundred times as sure."""

    def forward(self, logits):
        """Return the logits times 100."""
        return 100 * logits


sure, ball = nn.Sequential(sound, Sure()), attacks.Linf(0.1)
for name, model in {"as trained": sound, "logits times 100": sure}.items():
    signs = evaluation.signs(model, test.x, test.y, ball, generator=draws)
    caught = [sign for sign in signs if sign.masked]
    print(f"{name}: {len(caught)} of {len(signs)} signs of masked gradients")
    for sign in caught:
        print(f"  {sign.name}: {sign.value:.2f} against {sign.against:.2f}")
