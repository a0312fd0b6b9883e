"""The processes that torchrun starts: which one this is, and how they wait for each other.

Without torchrun there is one process, of rank 0. torch is imported when it is needed: to ask a
server takes none.
"""

import os
import shlex
import sys
from datetime import timedelta
from functools import cache

# The others wait while process 0 grades or writes a large model, or while one ends its last texts.
TIMEOUT = timedelta(hours=12)


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Return how many processes there are, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Return whether this is the process that prints, grades and writes."""
    return rank() == 0


def log(text: str) -> None:
    """Print in the main process only."""
    if is_main():
        print(text)


def local_device():
    """Return the torch.device of this process: its GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        # cuDNN's attention makes a plan for each new shape, which takes longer than a step of
        # decoding; torch takes it first on recent GPUs.
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def compute_dtype(device):
    """Return the type that a device computes in: float32 on a CPU, half of that on a GPU.

    That is bfloat16; float16 where the GPU has none (T4, V100).
    """
    import torch

    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


def init_distributed():
    """Start the process group torchrun describes, or one of a single process.

    Return (rank, number of processes, device). A second call starts nothing.
    """
    import torch
    import torch.distributed as dist

    device = local_device()
    if device.type == "cuda":
        # Rows of many lengths: fixed segments would leave holes that no tensor fits.
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = None if "RANK" in os.environ else dist.HashStore()  # type: ignore
        dist.init_process_group(backend, None, TIMEOUT, world_size(), rank(), store)
    return rank(), world_size(), device


def start() -> None:
    """Join the other processes, if there are any; from now on only the main one prints."""
    if world_size() > 1:
        init_distributed()
        if not is_main():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def broadcast(value):
    """Return the main process's value in all processes, so that it decides for them."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def maximum(value: int) -> int:
    """Return the largest value of all processes of a training."""
    import torch
    import torch.distributed as dist

    largest = torch.tensor(int(value), device=local_device())
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def end_distributed() -> None:
    """End together: a process that leaves while another still waits for it may abort it."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()


def leave_to_main() -> None:
    """End all processes but the main one, which goes on alone."""
    end_distributed()
    if not is_main():
        sys.exit()


@cache
def note_idle_gpus() -> None:
    """Print, once, how to use all GPUs if this process leaves some idle."""
    import torch

    n = torch.cuda.device_count()
    if n > world_size() == 1:
        command = f"torchrun --nproc-per-node {n} {shlex.join(sys.argv)}"
        print(f"note: this process uses one of {n} GPUs; all of them: {command}")
