"""Find masked gradients: one network, and the same one with its logits times 100.

Both give every image the same class, so they are equally robust. The second is so sure
of itself that float32 rounds its gradient to zero on most images, and FGSM leaves them
where they are. `signs` compares numbers that agree where gradients are sound.
"""

import torch
from torch import nn

from widemin import attacks, data, evaluation, training

torch.manual_seed(0)
draws = torch.Generator().manual_seed(0)
train, test = data.load("digits", "train"), data.load("digits", "test", size=200)
sound = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = training.SGD(sound.parameters(), lr=0.1)
training.fit(
    sound, optimizer, train.x, train.y, epochs=10, batch_size=32, generator=draws
)


class Sure(nn.Module):
    """The same answers, a hundred times as sure."""

    def forward(self, logits):
        """Return the logits times 100."""
        return 100 * logits


networks = {"as trained": sound, "logits times 100": nn.Sequential(sound, Sure())}
for name, model in networks.items():
    found = evaluation.signs(model, test.x, test.y, attacks.Linf(0.1), generator=draws)
    caught = [sign for sign in found if sign.masked]
    print(f"{name}: {len(caught)} of {len(found)} signs of masked gradients")
    for sign in caught:
        print(f"  {sign.name}: {sign.value:.2f} against {sign.against:.2f}")
