"""Faster training passes for the parts that cost most on a CPU. The mathematics is the model's own, except that
an expert takes at most `CAPACITY_FACTOR` times its fair share of tokens; the rest go without it in that layer.

On a CPU every new matrix shape costs the set-up of a new kernel, so all shapes here are fixed.
"""

import torch
import torch.nn.functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.cohere2_moe import modeling_cohere2_moe

CAPACITY_FACTOR = 2.0
HEAD_ROWS = 512  # rows of logits at a time, so that they stay in the cache


def experts_forward(self, hidden_states: torch.Tensor, selected: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gives each expert a table of fixed size; empty places point at an extra row of zeros."""
    tokens, width = hidden_states.shape
    capacity = -(-int(CAPACITY_FACTOR * selected.numel() / self.num_experts) // 32) * 32
    with torch.no_grad():
        flat = selected.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_experts)
        expert = flat[order]
        rank = torch.arange(flat.numel(), device=flat.device) - (counts.cumsum(0) - counts)[expert]
        kept = rank < capacity
        place = (expert * capacity + rank)[kept]
        source = torch.full((self.num_experts * capacity,), flat.numel(), device=flat.device)
        source[place] = order[kept]  # index into (token, choice) pairs
        token = (source // selected.shape[1]).clamp(max=tokens)
    padded = F.pad(hidden_states, (0, 0, 0, 1))
    rows = padded.index_select(0, token).to(torch.bfloat16).view(self.num_experts, capacity, width)
    gate, up = torch.bmm(rows, self.gate_up_proj.to(torch.bfloat16).transpose(1, 2)).chunk(2, dim=-1)
    output = torch.bmm(F.silu(gate) * up, self.down_proj.to(torch.bfloat16).transpose(1, 2)).flatten(0, 1)
    share = F.pad(weights.flatten(), (0, 1)).index_select(0, source)
    total = torch.zeros(tokens + 1, width, device=output.device).index_add(0, token, output.float() * share[:, None])
    return total[:tokens]


def attention_forward(module, query, key, value, attention_mask, scaling, **_unused):
    """Attention in f32: on a CPU its gradient is faster so, even beside bfloat16 products."""
    with torch.autocast(query.device.type, enabled=False):
        groups = query.shape[1] // key.shape[1]
        key, value = key.float().repeat_interleave(groups, 1), value.float().repeat_interleave(groups, 1)
        output = F.scaled_dot_product_attention(query.float(), key, value, attn_mask=attention_mask, scale=scaling)
    return output.transpose(1, 2), None


class HeadLoss(torch.autograd.Function):
    """Sum over tokens of weight * cross entropy of the tied head, with the gradient made in the same pass."""

    @staticmethod
    def forward(context, hidden, embedding, targets, token_weights, logit_scale):
        matrix = embedding.to(torch.bfloat16)
        hidden_gradient, matrix_gradient = torch.empty_like(hidden), torch.zeros_like(embedding)
        losses = torch.empty(len(hidden), device=hidden.device)
        for start in range(0, len(hidden), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            rows = hidden[part].to(torch.bfloat16)
            logits = (rows @ matrix.t()).float().mul_(logit_scale)
            gathered = logits.gather(1, targets[part, None])
            normaliser = logits.logsumexp(1, keepdim=True)
            losses[part] = (normaliser - gathered)[:, 0]
            logits.sub_(normaliser).exp_()
            logits.scatter_add_(1, targets[part, None], torch.full_like(gathered, -1.0))
            gradient = logits.mul_(token_weights[part, None] * logit_scale).to(torch.bfloat16)
            hidden_gradient[part] = (gradient @ matrix).float()
            matrix_gradient += (gradient.t() @ rows).float()
        context.save_for_backward(hidden_gradient, matrix_gradient)
        context.mark_non_differentiable(losses)
        return (losses * token_weights).sum(), losses

    @staticmethod
    def backward(context, total_gradient, _losses_gradient):
        hidden_gradient, matrix_gradient = context.saved_tensors
        return hidden_gradient * total_gradient, matrix_gradient * total_gradient, None, None, None


def install() -> None:
    modeling_cohere2_moe.Cohere2MoeExperts.forward = experts_forward
    ALL_ATTENTION_FUNCTIONS.register("training", attention_forward)
