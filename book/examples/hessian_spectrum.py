"""The Hessian spectrum of a network of your own: eigenvalues, trace, density.

Replace `model`, `x` and `y` by yours, or pass a DataLoader for x and no y;
`loss=` takes a loss of your own. Some eigenvalue of the Hessian is no further
from a printed one than its residual.
"""

import torch
from torch import nn

from widemin import data, hessian, training

torch.manual_seed(0)
draws = torch.Generator().manual_seed(0)
digits = data.load("digits", "train", size=500)
x, y = digits.x, digits.y
layers = nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)
model = nn.Sequential(*layers)
optimizer = training.SGD(model.parameters(), lr=0.1, momentum=0.9)
training.fit(model, optimizer, x, y, epochs=20, batch_size=25, generator=draws)

top = hessian.top_eigenvalues(model, x, y, k=3, generator=draws)
for value, residual in zip(top.values, top.residuals, strict=True):
    print(f"top eigenvalue    {value:7.3f}, residual {residual:.0e}")
low = hessian.bottom_eigenvalues(model, x, y, generator=draws)
print(f"bottom eigenvalue {low.values[0]:7.3f}, residual {low.residuals[0]:.0e}")
trace, error = hessian.trace(model, x, y, generator=draws)
print(f"trace             {trace:7.3f}, standard error {error:.3f}")

reach = 1.1 * float(top.values[0])
grid = torch.linspace(-0.1 * reach, reach, 1000)
density = hessian.density(model, x, y, grid, generator=draws)
near = grid.abs() < reach / 20
share = float(density[near].sum() / density.sum())
print(f"About {share:.0%} of the eigenvalues lie within {reach / 20:.2f} of 0.")
