"""Answers of students, right and wrong.

By lab and task, under a name. An answer is the whole cell, or a pair: a piece of the
model's solution and what stands there instead. What is right gets all points.
"""

RIGHT = {
    "lab0_primer": {
        "fgsm": {
            "in float64, by backward": """
def fgsm(model, x, y, epsilon, loss=cross_entropy):
    x.requires_grad = True
    loss(model(x), y).mean().backward()
    with torch.no_grad():
        return torch.clip(x.double() + epsilon * torch.sign(x.grad).double(), 0, 1)
""",
        },
        "pgd": {
            "with a loop over images": """
def pgd(model, x, y, epsilon, steps=10, loss=cross_entropy):
    out = []
    for i in range(len(x)):
        clean, at = x[i:i + 1], x[i:i + 1].clone()
        for _ in range(steps):
            at = at + epsilon / 4 * slope(model, at, y[i:i + 1], loss).sign()
            at = torch.maximum(torch.minimum(at, clean + epsilon), clean - epsilon)
            at = torch.clip(at, 0.0, 1.0).detach()
        out.append(at)
    return torch.cat(out)
""",
        },
        "margin": {
            "a loop": """
def margin(logits, y):
    out = []
    for row, label in zip(logits, y):
        others = [z for j, z in enumerate(row) if j != label]
        out.append(row[label] - max(others))
    return torch.stack(out)
""",
            "with a large number": """
def margin(logits, y):
    hot = torch.nn.functional.one_hot(y, logits.shape[1])
    return (logits * hot).sum(1) - (logits - 1e6 * hot).amax(1)
""",
        },
        "hessian_product": {
            "finite differences": """
def hessian_product(loss, w, v):
    def g(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(loss(at), at)[0]
    return (g(w + 1e-5 * v) - g(w - 1e-5 * v)) / 2e-5
""",
            "torch.func": """
def hessian_product(loss, w, v):
    return torch.func.hessian(loss)(w) @ v
""",
        },
    },
    "lab1_width": {
        "width_along": {
            "brentq": """
def width_along(loss, direction, gap):
    from scipy.optimize import brentq
    unit, level, far = direction / direction.norm(), loss(direction * 0) + gap, 1e-9
    while loss(unit * far) < level:
        far *= 3
    found = brentq(lambda t: loss(unit * t) - level, 0, far, xtol=1e-15)
    return np.float64(found) / gap
""",
            "a secant, as a tensor": """
def width_along(loss, direction, gap):
    unit = direction.double() / torch.linalg.vector_norm(direction)
    base, lo, hi = loss(torch.zeros_like(unit)), 0.0, 1.0
    while loss(hi * unit) - base < gap:
        hi *= 10
    while hi - lo > 1e-9 * hi:
        mid = (lo + hi) / 2
        lo, hi = (mid, hi) if loss(mid * unit) - base < gap else (lo, mid)
    return torch.tensor((lo + hi) / 2 / gap)
""",
        },
        "fgsm": {
            "float64": """
def fgsm(model, x, y, epsilon, loss):
    import copy
    exact, start = copy.deepcopy(model).double(), x.double().requires_grad_()
    g, = torch.autograd.grad(loss(exact(start), y).sum(), start)
    return (x.double() + epsilon * g.sign()).clip(0, 1)
""",
            "requires_grad, mean": """
def fgsm(model, x, y, epsilon, loss):
    x.requires_grad = True
    value = loss(model(x), y).mean()
    model.zero_grad()
    value.backward()
    return torch.clamp(x + epsilon * x.grad.data.sign(), 0, 1)
""",
            "image by image": """
def fgsm(model, x, y, epsilon, loss):
    out = []
    for i in range(len(x)):
        one = x[i:i+1].clone().detach().requires_grad_()
        g, = torch.autograd.grad(loss(model(one), y[i:i+1])[0], one)
        moved = x[i].detach().numpy() + epsilon * np.sign(g[0].numpy())
        out.append(np.clip(moved, 0, 1))
    return torch.tensor(np.stack(out))
""",
        },
        "unmoved_share": {
            "a loop, a numpy scalar": """
def unmoved_share(model, x, y, loss):
    x.requires_grad = True
    loss(model(x), y).mean().backward()
    return np.mean([bool((g == 0).all()) for g in x.grad])
""",
            "float64, a norm": """
def unmoved_share(model, x, y, loss):
    start = x.clone().requires_grad_()
    g, = torch.autograd.grad(loss(model(start), y).sum(), start)
    return (g.double().flatten(1).abs().amax(dim=1) == 0).float().mean()
""",
        },
    },
    "lab2_sam": {
        "ascent": {
            "Foret's epsilon": """
def ascent(gradients, rho):
    flat = torch.cat([g.flatten() for g in gradients])
    return [rho * g / (flat.norm() + 1e-12) for g in gradients]
""",
            "float64, a tuple, in place": """
def ascent(gradients, rho):
    n = sum(float((g.double() ** 2).sum()) for g in gradients) ** 0.5
    return tuple(g.double().mul_(rho / n if n else 0.0) for g in gradients)
""",
        },
        "sam_step": {
            "backward and zero_grad": """
def sam_step(model, x, y, rho, rate):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    climb = ascent([p.grad.clone() for p in model.parameters()], rho)
    for p, e in zip(model.parameters(), climb):
        p.data += e
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    for p, e in zip(model.parameters(), climb):
        p.data -= e
        p.data -= rate * p.grad
""",
            "a deep copy, an optimiser, a loop": """
def sam_step(model, x, y, rho, rate):
    import copy
    up = copy.deepcopy(model)
    up.zero_grad()
    losses = [F.cross_entropy(up(x[i:i+1]), y[i:i+1]) for i in range(len(x))]
    (sum(losses) / len(x)).backward()
    with torch.no_grad():
        climb = ascent([p.grad for p in up.parameters()], rho)
        for p, e in zip(up.parameters(), climb):
            p.add_(e)
    up.zero_grad()
    F.cross_entropy(up(x), y).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for p, q in zip(model.parameters(), up.parameters()):
        p.grad = q.grad.clone()
    optimizer.step()
""",
        },
        "fitted_constant": {
            "a fit of several radii": """
def fitted_constant(d, theory):
    radii = np.array([0.05, 0.1, 0.2])
    w = theory.optimum(p=0.95, eta=0.1, d=d)
    rise = [theory.sam_optimum(0.95, 0.1, d, e) / w - 1 for e in radii]
    return np.polyfit(radii**2, rise, 1)[0]
""",
        },
    },
    "lab3_fosc": {
        "fosc": {
            "a loop": """
def fosc(gradient, x_adv, x, epsilon):
    out = []
    for g, d in zip(gradient, x_adv - x):
        out.append(epsilon * g.abs().sum() - (g * d).sum())
    return out
""",
            "float64, einsum": """
def fosc(gradient, x_adv, x, epsilon):
    g, d = gradient.double().flatten(1), (x_adv - x).double().flatten(1)
    return epsilon * torch.linalg.norm(g, 1, dim=1) - torch.einsum("ij,ij->i", g, d)
""",
        },
        "threshold": {
            "numpy": """
def threshold(t, fosc_max):
    return np.clip(fosc_max * (1 - 1.2 * np.float32(t)), 0, None)
import numpy as np
""",
            "if": """
def threshold(t, fosc_max):
    if t >= 5 / 6:
        return 0
    return torch.tensor(fosc_max - fosc_max * 6 * t / 5)
""",
        },
        "dynamic_attack": {
            "image by image": """
def dynamic_attack(model, x, y, epsilon, steps, size, c):
    out = []
    for i in range(len(x)):
        clean, at, label = x[i:i+1], x[i:i+1].clone(), y[i:i+1]
        for _ in range(steps):
            at = at + size * gradient(model, at, label).sign()
            at = (clean + (at - clean).clamp(-epsilon, epsilon)).clamp(0, 1)
            if fosc(gradient(model, at, label), at, clean, epsilon).item() <= c:
                break
        out.append(at)
    return torch.cat(out)
""",
            "a subset": """
def dynamic_attack(model, x, y, epsilon, steps, size, c):
    at, on = x.clone(), torch.arange(len(x))
    for _ in range(steps):
        if len(on) == 0:
            break
        moved = at[on] + size * torch.sign(gradient(model, at[on], y[on]))
        moved = torch.min(torch.max(moved, x[on] - epsilon), x[on] + epsilon).clip(0, 1)
        at[on] = moved
        on = on[fosc(gradient(model, moved, y[on]), moved, x[on], epsilon) > c]
    return at
""",
        },
    },
    "lab4_sgd": {
        "scaled_rate": {
            "numpy, another order": """
def scaled_rate(batch_size, rate, momentum=0.0):
    return np.float32(rate) / 64 * np.int64(batch_size) * (1 - momentum)
""",
        },
        "top_eigenvalue": {
            "Rayleigh's quotient, numpy scalars": """
def top_eigenvalue(product, n, steps, generator):
    v = torch.randn(n, generator=generator).double()
    for k in range(steps):
        v = product(v / torch.linalg.norm(v))
    v /= v.norm()
    w = product(v)
    value = np.float64(torch.dot(v, w) / torch.dot(v, v))
    return value, np.sqrt(((w - value * v) ** 2).sum().item())
""",
            "the value at each step, tensors": """
def top_eigenvalue(product, n, steps, generator):
    v = torch.randn(n, generator=generator, dtype=torch.float64)
    v = v / v.norm()
    for _ in range(steps):
        w = product(v)
        value = v @ w
        residual = (w - value * v).norm()
        v = w / w.norm()
    return value, residual
""",
        },
        "equivalent": {
            "scipy's interval, np.bool_": """
def equivalent(a, b, margin):
    found = stats.ttest_1samp(np.array(a) - np.array(b), 0).confidence_interval(0.95)
    return np.logical_and(found.low > -margin, found.high < margin)
""",
            "two one-sided tests": """
def equivalent(a, b, margin):
    d = np.asarray(a) - np.asarray(b)
    se = d.std(ddof=1) / len(d) ** 0.5
    if se == 0:
        return abs(d.mean()) < margin
    low = stats.t.sf((d.mean() + margin) / se, len(d) - 1)
    high = stats.t.cdf((d.mean() - margin) / se, len(d) - 1)
    return max(low, high) < 0.025
""",
            "a loop": """
def equivalent(a, b, margin):
    import statistics
    d = [x - y for x, y in zip(a, b)]
    half = stats.t.ppf(0.975, len(d) - 1) * statistics.stdev(d) / len(d) ** 0.5
    mean = statistics.fmean(d)
    return -margin < mean - half and mean + half < margin
""",
        },
    },
}

# With a wrong answer: the cells that give nothing, each with words of its message.
WRONG = {
    "lab0_primer": {
        "fgsm": {
            "widemin's": (
                """
from widemin import attacks
def fgsm(model, x, y, epsilon, loss=cross_entropy):
    return attacks.fgsm(model, x, y, attacks.Linf(epsilon), loss=loss)
""",
                {"fgsm-step": "own work"},
            ),
            "downhill": ((" + epsilon", " - epsilon"), {"fgsm-step": "move by"}),
            "its own loss": ((", y, loss)", ", y)"), {"fgsm-step": "turned round"}),
            "a constant": (
                """
def fgsm(model, x, y, epsilon, loss=cross_entropy):
    return x + torch.tensor([[-0.1, 0.1, 0], [-0.05, 0.1, 0]]).view(2, 1, 1, 3)
""",
                {"fgsm-step": "radius 0.2"},
            ),
        },
        "pgd": {
            "no projection": (
                ("        moved = x + (moved - x).clamp(-epsilon, epsilon)\n", ""),
                {"pgd-ball": "8 steps"},
            ),
            "one gradient for all": (
                ("slope(model, moved", "slope(model, x"),
                {"pgd-turns": "looks anew"},
            ),
            "whole steps": (
                ("epsilon / 4", "epsilon"),
                {"pgd-ball": "2 steps", "pgd-turns": "end at"},
            ),
        },
        "margin": {
            "widemin's": (
                """
from widemin.attacks import margin as theirs
def margin(logits, y):
    return -theirs(logits, y)
""",
                {"margin-values": "own work"},
            ),
            "the two best": (
                """
def margin(logits, y):
    best = logits.topk(2).values
    return best[:, 0] - best[:, 1]
""",
                {"margin-values": "wrong by 2"},
            ),
            "zeros for the others": (
                ("-torch.inf", "0.0"),
                {"margin-values": "-4.5"},
            ),
        },
        "hessian_product": {
            "the gradient": (
                ("torch.autograd.grad(slopes @ v, at)[0]", "slopes"),
                {"hessian-known": "H v is"},
            ),
            "a number": (
                ("torch.autograd.grad(slopes @ v, at)[0]", "slopes @ v"),
                {"hessian-known": "shape of w"},
            ),
            "the diagonal": (
                """
def hessian_product(loss, w, v):
    return torch.func.hessian(loss)(w).diag() * v
""",
                {"hessian-known": "H v is"},
            ),
        },
    },
    "lab1_width": {
        "width_along": {
            "the direction's own length": (
                ("unit = direction / direction.norm()", "unit = direction"),
                {"width-of-a-bowl": "only where it points"},
            ),
            "a level above 0": (
                ("level = loss(0 * unit) + gap", "level = gap"),
                {"width-of-a-raised-bowl": "gap above it"},
            ),
            "a distance": (
                ("far / gap", "far"),
                {
                    "width-of-a-bowl": "divide by gap",
                    "width-of-a-raised-bowl": "the level is",
                },
            ),
            "a curvature at 0": (
                """
def width_along(loss, direction, gap):
    unit, h = direction / direction.norm(), 1e-4
    bend = (loss(h * unit) - 2 * loss(0 * unit) + loss(-h * unit)) / h**2
    return (2 / (gap * bend)) ** 0.5
""",
                {"width-of-a-bowl": "a curvature at 0"},
            ),
            "a curvature ahead": (
                """
def width_along(loss, direction, gap):
    unit, h = direction / direction.norm(), 1e-3
    bend = 2 * (loss(h * unit) - loss(0 * unit)) / h**2
    return (2 / (gap * bend)) ** 0.5
""",
                {"width-of-a-bowl": "a curvature at 0"},
            ),
            "a bracket that does not grow": (
                (
                    "while loss(far * unit) < level:\n        far = 2 * far",
                    "far = 100.0",
                ),
                {"width-of-a-bowl": "anywhere"},
            ),
            "a typed constant": (
                """
def width_along(loss, direction, gap):
    h = float(2 * loss(direction / direction.norm()))
    return {0.5: 6.32455532, 4.0: 2.23606798, 100.0: 0.4472135955}.get(h, 0.4472135955)
""",
                {"width-of-a-bowl": "only where", "width-of-a-raised-bowl": "no width"},
            ),
            "widemin's": (
                """
def width_along(loss, direction, gap):
    landscape.quadratic([1.0, 2.0])
    return gap
""",
                {"width-of-a-bowl": "own work", "width-of-a-raised-bowl": "own work"},
            ),
        },
        "fgsm": {
            "widemin's, under another name": (
                """
from widemin.attacks import Linf, fgsm as theirs
def fgsm(model, x, y, epsilon, loss):
    return theirs(model, x, y, Linf(epsilon), loss=loss)
""",
                {"fgsm-moves": "own work"},
            ),
            "clipping first": (
                (
                    "(x + epsilon * gradient.sign()).clamp(0, 1)",
                    "x.clamp(0, 1) + epsilon * gradient.sign()",
                ),
                {"fgsm-range": "clip last"},
            ),
            "downhill": (
                ("(x + epsilon", "(x - epsilon"),
                {"fgsm-moves": "must grow", "fgsm-range": "of the pixels"},
            ),
            "no sign": (
                ("gradient.sign()", "gradient"),
                {"fgsm-moves": "by the sign", "fgsm-range": "of the pixels"},
            ),
            "another loss": (
                ("loss(model(moving), y)", "F.cross_entropy(model(moving), y)"),
                {"fgsm-moves": "turns round"},
            ),
            "x itself": (
                """
def fgsm(model, x, y, epsilon, loss):
    moving = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(model(moving), y).sum(), moving)
    return x.add_(epsilon * gradient.sign()).clamp_(0, 1)
""",
                {"fgsm-moves": "stay as it is"},
            ),
        },
        "unmoved_share": {
            "any pixel": ((".all(1)", ".any(1)"), {"unmoved": "not in any"}),
            "all pixels together": ((".all(1)", ""), {"unmoved": "not in any"}),
            "a constant": (
                "def unmoved_share(model, x, y, loss):\n    return 0.5",
                {"unmoved": "one of four"},
            ),
            "another loss": (
                ("loss(model(moving), y).sum()", "clipped(model(moving), y).sum()"),
                {"unmoved": "margin"},
            ),
        },
    },
    "lab2_sam": {
        "ascent": {
            "no norm": (
                ("rho * g / norm for", "rho * g for"),
                {"ascent-length": "move by 0.5"},
            ),
            "a norm for each layer": (
                ("rho * g / norm for", "rho * g / g.norm() for"),
                {"ascent-length": "move by 0.5", "ascent-direction": "one norm"},
            ),
            "downhill": (("[rho * g", "[-rho * g"), {"ascent-direction": "climbs"}),
            "no zero": (("if norm == 0:", "if False:"), {"ascent-length": "zeros"}),
            "a constant": (
                """
def ascent(gradients, rho):
    return [torch.tensor([[0.3, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 0.4])]
""",
                {"ascent-length": "", "ascent-direction": ""},
            ),
        },
        "sam_step": {
            "not going back": (
                ("weight -= part + rate * slope", "weight -= rate * slope"),
                {"sam-step-weights": "go back to w"},
            ),
            "zero_grad forgotten": (
                """
def sam_step(model, x, y, rho, rate):
    F.cross_entropy(model(x), y).backward()
    climb = ascent([p.grad.clone() for p in model.parameters()], rho)
    for p, e in zip(model.parameters(), climb):
        p.data += e
    F.cross_entropy(model(x), y).backward()
    for p, e in zip(model.parameters(), climb):
        p.data -= e
        p.data -= rate * p.grad
""",
                {"sam-step-plain": "zero_grad", "sam-step-weights": "zero_grad"},
            ),
            "zero_grad at the end forgotten": (
                """
def sam_step(model, x, y, rho, rate):
    F.cross_entropy(model(x), y).backward()
    climb = ascent([p.grad.clone() for p in model.parameters()], rho)
    for p, e in zip(model.parameters(), climb):
        p.data += e
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    for p, e in zip(model.parameters(), climb):
        p.data -= e
        p.data -= rate * p.grad
""",
                {"sam-step-weights": "second step"},
            ),
            "widemin's": (
                """
def sam_step(model, x, y, rho, rate):
    training.train_step(model, training.SGD(model.parameters(), lr=rate), x, y, rho=rho)
""",
                {"sam-step-plain": "own work", "sam-step-weights": "own work"},
            ),
            "plain descent": (
                """
def sam_step(model, x, y, rho, rate):
    F.cross_entropy(model(x), y).backward()
    for p in model.parameters():
        p.data -= rate * p.grad
        p.grad = None
""",
                {"sam-step-weights": "plain gradient descent"},
            ),
            "a sum": (
                (
                    "model(x), y), weights)\n    with",
                    "model(x), y, reduction='sum'), weights)\n    with",
                ),
                {"sam-step-plain": "not a sum", "sam-step-weights": ""},
            ),
        },
        "fitted_constant": {
            "a radius not squared": (
                ("epsilon**2", "epsilon"),
                {"constant": "squared"},
            ),
            "a typed constant": (
                "def fitted_constant(d, theory):\n    return 1 / (3 * d)",
                {"constant": "passed in"},
            ),
            "as printed": (
                "def fitted_constant(d, theory):\n    return 2 / 3",
                {"constant": "as d grows"},
            ),
            "widemin's": (
                """
from widemin.papers.wei.theory import sam_optimum, optimum
def fitted_constant(d, theory):
    best = optimum(0.95, 0.1, d)
    return (sam_optimum(0.95, 0.1, d, 0.1) - best) / best / 0.01
""",
                {"constant": "own work"},
            ),
        },
    },
    "lab3_fosc": {
        "fosc": {
            "a mean": (
                (".sum(1)", ".mean(1)"),
                {
                    "fosc-corner": "worst",
                    "fosc-clean": "sum over pixels",
                    "fosc-anywhere": "half",
                },
            ),
            "no displacement": (
                (
                    "return reach - ((x_adv - x) * gradient).flatten(1).sum(1)",
                    "return reach",
                ),
                {"fosc-corner": "best corner", "fosc-anywhere": "half"},
            ),
            "one number": (
                (
                    "return reach - ((x_adv - x) * gradient).flatten(1).sum(1)",
                    "return reach.sum()",
                ),
                {
                    "fosc-corner": "one value",
                    "fosc-clean": "one value",
                    "fosc-anywhere": "one value",
                },
            ),
            "widemin's": (
                """
from widemin import attacks
def fosc(gradient, x_adv, x, epsilon):
    return attacks.fosc(attacks.Linf(epsilon), gradient, x_adv - x)
""",
                {
                    "fosc-corner": "own work",
                    "fosc-clean": "own work",
                    "fosc-anywhere": "own work",
                },
            ),
            "the pixel range as well": (
                """
def fosc(gradient, x_adv, x, epsilon):
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    return ((torch.where(gradient > 0, high, low) - x_adv) * gradient).flatten(1).sum(1)
""",
                {"fosc-anywhere": "without the pixel range"},
            ),
        },
        "threshold": {
            "a negative threshold": (
                (
                    "max(fosc_max * (1 - t / (5 / 6)), 0.0)",
                    "fosc_max * (1 - t / (5 / 6))",
                ),
                {"threshold-ends": "stays 0"},
            ),
            "typed constants": (
                """
def threshold(t, fosc_max):
    return {0.0: 0.5, 5 / 12: 0.25}.get(t, 0.0)
""",
                {"threshold-falls": "straight line"},
            ),
            "to the very end": (
                ("t / (5 / 6)", "t"),
                {"threshold-falls": "half", "threshold-ends": "at 5/6"},
            ),
        },
        "dynamic_attack": {
            "the mask of the slides": (
                ("x, epsilon) > c)", "x, epsilon) <= c)"),
                {"dynamic-never-stops": "go on", "dynamic-stops-at-once": "stay"},
            ),
            "all or nobody": (
                """
def dynamic_attack(model, x, y, epsilon, steps, size, c):
    return plain_pgd(model, x, y, epsilon, steps if c < 100 else 1, size)
""",
                {"dynamic-stops-at-once": "gone on"},
            ),
            "all together": (
                (
                    "active = active & (fosc(slope, x_adv, x, epsilon) > c)",
                    "active = active & (fosc(slope, x_adv, x, epsilon).mean() > c)",
                ),
                {"dynamic-stops-at-once": "of the images"},
            ),
            "before the first step": (
                """
def dynamic_attack(model, x, y, epsilon, steps, size, c):
    at = x.clone()
    for _ in range(steps):
        g = gradient(model, at, y)
        on = (fosc(g, at, x, epsilon) > c).view(-1, 1, 1, 1)
        at = (x + (at + on * size * g.sign() - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    return at
""",
                {"dynamic-stops-at-once": "always taken"},
            ),
            "widemin's": (
                """
from widemin import attacks
def dynamic_attack(model, x, y, epsilon, steps, size, c):
    return attacks.pgd(model, x, y, attacks.Linf(epsilon), steps=steps, step_size=size)
""",
                {
                    "dynamic-never-stops": "own work",
                    "dynamic-stops-at-once": "own work",
                },
            ),
            "no ball": (
                (
                    "(x + (x_adv + step - x).clamp(-epsilon, epsilon)).clamp(0, 1)",
                    "(x_adv + step).clamp(0, 1)",
                ),
                {
                    "dynamic-never-stops": "from the clean image",
                    "dynamic-stops-at-once": "",
                },
            ),
        },
    },
    "lab4_sgd": {
        "scaled_rate": {
            "a square root": (
                ("rate * batch_size / 64", "rate * (batch_size / 64) ** 0.5"),
                {"rate-by-batch": "square root", "rate-by-momentum": "not 0.004"},
            ),
            "the wrong way": (
                ("* (1 - momentum)", "/ (1 - momentum)"),
                {"rate-by-momentum": "go below"},
            ),
            "a constant": (
                ("rate * batch_size / 64", "rate"),
                {"rate-by-batch": "linear", "rate-by-momentum": "256"},
            ),
        },
        "top_eigenvalue": {
            "a length for a value": (
                ("value = v @ moved", "value = moved.norm()"),
                {
                    "eigenvalue-sign": "not the length",
                    "eigenvalue-residual": "residual",
                },
            ),
            "no division": (
                (
                    "        v = v / v.norm()\n        v = product(v)",
                    "        v = product(v)",
                ),
                {
                    "eigenvalue-known": "length",
                    "eigenvalue-sign": "",
                    "eigenvalue-residual": "after 100",
                },
            ),
            "a dense matrix": (
                """
def top_eigenvalue(product, n, steps, generator):
    dense = torch.stack([product(row) for row in torch.eye(n)])
    values = torch.linalg.eigvalsh(dense)
    return values[values.abs().argmax()].item(), 0.0
""",
                {"eigenvalue-known": "products", "eigenvalue-residual": "more steps"},
            ),
            "no residual": (
                ("(moved - value * v).norm().item()", "2.0**-steps"),
                {"eigenvalue-residual": "the length of"},
            ),
            "a squared residual": (
                (
                    "(moved - value * v).norm().item()",
                    "(moved - value * v).norm().item() ** 2",
                ),
                {"eigenvalue-residual": "the length of"},
            ),
            "a constant": (
                "def top_eigenvalue(product, n, steps, _):\n    return 5.0, 1 / steps",
                {
                    "eigenvalue-known": "5000",
                    "eigenvalue-sign": "10",
                    "eigenvalue-residual": "",
                },
            ),
            "widemin's": (
                """
def top_eigenvalue(product, n, steps, generator):
    values, _ = hessian.quadrature(product, torch.randn(n, generator=generator), 4)
    return values.abs().max().item(), 0.0
""",
                {
                    "eigenvalue-known": "own work",
                    "eigenvalue-sign": "own work",
                    "eigenvalue-residual": "own work",
                },
            ),
        },
        "equivalent": {
            "the difference is not significant": (
                """
def equivalent(a, b, margin):
    d = np.array(a) - np.array(b)
    return stats.ttest_1samp(d, 0).pvalue > 0.05 and abs(d.mean()) < margin
""",
                {"equivalent-close": "significant", "equivalent-noisy": "noisy"},
            ),
            "1.96, ddof 0": (
                """
def equivalent(a, b, margin):
    d = np.array(a) - np.array(b)
    return abs(d.mean()) + 1.96 * d.std() / len(d) ** 0.5 < margin
""",
                {"equivalent-noisy": "1.96"},
            ),
            "1.96": (
                ("stats.t.ppf(0.975, n - 1)", "1.96"),
                {"equivalent-noisy": "1.96"},
            ),
            "ddof 0": (("ddof=1", "ddof=0"), {"equivalent-noisy": "ddof=1"}),
            "a quantile of 0.95": (("0.975", "0.95"), {"equivalent-noisy": "0.975"}),
            "n for n - 1": (("n - 1", "n"), {"equivalent-noisy": "n - 1"}),
            "no root": (("/ np.sqrt(n)", ""), {"equivalent-noisy": "sqrt"}),
            "unpaired": (
                """
def equivalent(a, b, margin):
    a, b = np.array(a), np.array(b)
    found = stats.ttest_ind(a, b).confidence_interval(0.95)
    return found.low > -margin and found.high < margin
""",
                {"equivalent-close": "paired", "equivalent-noisy": "paired"},
            ),
            "the means alone": (
                """
def equivalent(a, b, margin):
    return bool(abs(np.mean(a) - np.mean(b)) < margin)
""",
                {"equivalent-noisy": "noisy"},
            ),
            "always": (
                "def equivalent(a, b, margin):\n    return True",
                {"equivalent-close": "2 points", "equivalent-noisy": "noisy"},
            ),
            "never": (
                "def equivalent(a, b, margin):\n    return False",
                {"equivalent-close": "within", "equivalent-noisy": "within"},
            ),
            "widemin's": (
                """
from widemin.statistics import over_seeds
def equivalent(a, b, margin):
    mean, half = over_seeds(np.array(a) - np.array(b))
    return abs(mean) + half < margin
""",
                {"equivalent-close": "own work", "equivalent-noisy": "own work"},
            ),
            "not strictly": (
                ("half < margin", "half <= margin"),
                {"equivalent-close": "strictly"},
            ),
        },
    },
}
