"""Muon: momentum whose matrix is made orthogonal before each step. Learns faster per token than AdamW here."""

import torch

# Quintic Newton-Schulz coefficients of the original recipe: fast, good to a few per cent.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximates U V^T of each matrix of a stack [N, rows, columns]."""
    a, b, c = COEFFICIENTS
    wide = matrices.transpose(-1, -2) if matrices.size(-2) > matrices.size(-1) else matrices
    x = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(torch.bfloat16)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrices.dtype)
    return x.transpose(-1, -2) if matrices.size(-2) > matrices.size(-1) else x


class Muon(torch.optim.Optimizer):
    """Every parameter is a matrix [rows, columns] or a stack of matrices; `views` says how a stack is cut."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"]
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(velocity, group["momentum"])
                parts = group.get("parts", 1)  # 2 for gate and up, which are stored as one matrix
                stack = update.reshape(-1, update.shape[-2] // parts, update.shape[-1])
                scale = max(1.0, stack.shape[-2] / stack.shape[-1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonal(stack).reshape(parameter.shape), alpha=-group["lr"] * scale)
