"""SAM in a training loop of your own: one line of it changes.

The loop is plain torch, with a DataLoader and torch's SGD. `train_step` stands for
zero_grad, backward and step; at the end it is compared with SAM written out.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from widemin import data, evaluation, training

torch.manual_seed(0)
train, test = data.load("digits"), data.load("digits", "test")
pairs = TensorDataset(train.x, train.y)
loader = DataLoader(pairs, batch_size=32, shuffle=True)
layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
model = nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(10):
    for x, y in loader:
        training.train_step(model, optimizer, x, y, rho=0.05)  # 0: plain SGD
right = evaluation.share(evaluation.correct(model, test.x, test.y))
print(f"Test accuracy after ten epochs of SAM: {right:.1%}")

twin = copy.deepcopy(model)
weights, start = list(twin.parameters()), list(model.parameters())
F.cross_entropy(twin(x), y).backward()
norm = torch.cat([w.grad.flatten() for w in weights]).norm()
with torch.no_grad():  # climb to w + rho g / |g|,
    torch._foreach_add_(weights, [0.05 * w.grad / norm for w in weights])
twin.zero_grad()
F.cross_entropy(twin(x), y).backward()  # take the gradient there, step
ends = [w - 0.1 * up.grad for w, up in zip(start, weights, strict=True)]  # from w
training.train_step(model, optimizer, x, y, rho=0.05)
apart = [(w - to).abs().max() for w, to in zip(start, ends, strict=True)]
print(f"Largest difference of a weight from SAM written out: {max(apart):.0e}")
