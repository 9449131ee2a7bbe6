"""Trains the demo model.

    python train.py --minutes 60 --workers 2 --output runs/demo        # the learning rate reaches zero when the time is up
    python train.py --steps 4000 --workers 2 --output runs/demo        # the same by count: reproducible on the same machine
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as distributed
from transformers import Cohere2MoeForCausalLM

from architecture import configuration
from batches import PAD, Batches, attention_masks
from fast_paths import HeadLoss, install
from muon import Muon


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="wall-clock schedule")
    parser.add_argument("--steps", type=int, help="schedule by step count; wins over --minutes")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--conversation-share", type=float, default=0.5)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.004)
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the router's load-balancing loss")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="CPU processes of one thread each that share a batch")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save-minutes", type=float, default=4)
    options = parser.parse_args()
    if options.rows % (2 * options.workers):
        parser.error("--rows must be a multiple of twice the --workers")
    if options.minutes is None and options.steps is None:
        parser.error("give --minutes or --steps")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def make_model(options: argparse.Namespace) -> Cohere2MoeForCausalLM:
    torch.manual_seed(options.seed)
    config = configuration()
    config._experts_implementation = "eager"
    config._attn_implementation = "training"
    model = Cohere2MoeForCausalLM(config)
    with torch.no_grad():
        residual_scale = (2 * config.num_hidden_layers) ** -0.5
        for name, parameter in model.named_parameters():
            if "embed_tokens" in name:
                parameter.normal_(0, 0.1)
            elif parameter.dim() >= 2:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
                if "o_proj" in name or "down_proj" in name:
                    parameter.mul_(residual_scale)
    return model.to(options.device).train()


def make_optimizers(model, options: argparse.Namespace) -> list[torch.optim.Optimizer]:
    matrices, fused, rest = [], [], []
    for name, parameter in model.named_parameters():
        is_router = name.endswith("mlp.gate.weight")
        if "gate_up_proj" in name:
            fused.append(parameter)
        elif parameter.dim() >= 2 and "embed_tokens" not in name and not is_router:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    muon = Muon([{"params": matrices}, {"params": fused, "parts": 2}], lr=options.muon_rate)
    adam = torch.optim.AdamW(rest, lr=options.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adam]


class RouterRecorder:
    """Collects the routers' logits of one forward pass for the balance loss."""

    def __init__(self, model):
        self.outputs, self.highest_load = [], 0.0
        for layer in model.model.layers:
            if hasattr(layer.mlp, "experts"):
                layer.mlp.gate.register_forward_hook(lambda module, inputs, output: self.outputs.append(output))

    def balance_loss(self, experts: int) -> torch.Tensor:
        losses, self.highest_load = [], 0.0
        for logits, _, selected in self.outputs:
            logits = logits.float()
            load = torch.bincount(selected.flatten(), minlength=experts).to(logits.dtype) / selected.numel()
            share = torch.sigmoid(logits)
            share = (share / share.sum(-1, keepdim=True)).mean(0)
            losses.append(experts * (load * share).sum())
            self.highest_load = max(self.highest_load, load.max().item() * experts)
        self.outputs.clear()
        return torch.stack(losses).mean()


def rate_factor(progress: float, step: int) -> float:
    """Linear warm-up over 100 steps, flat, then linearly to zero over the last 55 % of the run."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.55))


def save(model, options, state: dict) -> None:
    options.output.mkdir(parents=True, exist_ok=True)
    partial = options.output / "checkpoint.partial"
    torch.save({"model": model.state_dict(), **state}, partial)
    partial.replace(options.output / "checkpoint.pt")


def forward_backward(model, recorder, rows: torch.Tensor, options, rows_of_source: int) -> tuple[float, float]:
    """Adds the gradients of one batch; returns the mean losses of its source and its conversation tokens."""
    inputs, targets = rows[:, :-1], rows[:, 1:].contiguous()
    weights = (targets != PAD).float()
    weights /= weights.sum()
    with torch.autocast(options.device, dtype=torch.bfloat16):
        masks = attention_masks(inputs, model.config.sliding_window)
        hidden = model.model(input_ids=inputs, attention_mask=masks, use_cache=False).last_hidden_state
    embedding = model.model.embed_tokens.weight
    loss, losses = HeadLoss.apply(
        hidden.float().flatten(0, 1), embedding, targets.flatten(), weights.flatten(), model.config.logit_scale
    )
    (loss + options.balance * recorder.balance_loss(model.config.num_experts)).backward()
    losses = losses.view_as(weights) * (weights > 0)
    parts = losses.split([rows_of_source, len(rows) - rows_of_source]), weights.split([rows_of_source, len(rows) - rows_of_source])
    source_loss, chat_loss = [(part.sum() / (weight > 0).sum()).item() for part, weight in zip(*parts)]
    return source_loss, chat_loss


def average_gradients(model, workers: int) -> None:
    """One exchange per step: threads inside the operations would wait for each other hundreds of times."""
    if workers == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view_as(gradient))


def agreed_progress(options, step: int, started: float) -> float:
    """The first worker's clock decides for all."""
    if options.steps:
        return step / options.steps
    progress = torch.tensor([(time.monotonic() - started) / (60 * options.minutes)], dtype=torch.float64)
    if options.workers > 1:
        distributed.broadcast(progress, 0)
    return progress.item()


def train(rank: int, options: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # tiny probabilities otherwise cost a microcode trap each
    if options.workers > 1:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.workers)
    rows_count = options.rows // options.workers
    batches = Batches(options.length, rows_count, options.conversation_share, options.seed + rank)
    install()
    model = make_model(options)
    recorder, optimizers = RouterRecorder(model), make_optimizers(model, options)
    if rank == 0:
        print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "source_rows": len(batches.parts[0]),
                          "conversation_rows": len(batches.parts[1]), "padding": float((batches.parts[1] == PAD).mean())}), flush=True)
    started = saved = time.monotonic()
    step, progress = 0, 0.0
    while (progress := agreed_progress(options, step, started)) < 1.0:
        rows = batches.next().to(options.device)
        source_loss, chat_loss = forward_backward(model, recorder, rows, options, rows_of_source=batches.counts[0])
        average_gradients(model, options.workers)
        factor = rate_factor(progress, step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * factor
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        seconds = time.monotonic() - started
        if rank == 0 and (step % 20 == 0 or step <= 5):
            print(json.dumps({"step": step, "seconds": round(seconds), "source": round(source_loss, 3), "chat": round(chat_loss, 3),
                              "load": round(recorder.highest_load, 2), "rate": round(factor, 3)}), flush=True)
        if rank == 0 and time.monotonic() - saved > 60 * options.save_minutes:
            saved = time.monotonic()
            save(model, options, {"step": step, "finished": False, "minutes": seconds / 60, "options": vars(options)})
    if rank == 0:
        save(model, options, {"step": step, "finished": True, "minutes": (time.monotonic() - started) / 60, "options": vars(options)})


def main() -> None:
    options = arguments()
    if options.workers == 1:
        train(0, options, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, args=(options, f"{folder}/store"), nprocs=options.workers)


if __name__ == "__main__":
    main()
