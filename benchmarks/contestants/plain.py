"""What people write by hand: a module, an optimiser and a loop in plain PyTorch."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ..problem import LR, Problem
from ..race import Contestant
from ..timing import timed


class PlainVAE(nn.Module):
    """The textbook's VAE of two perceptrons; its forward is the loss, nats for each row. It always starts the same."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = problem.layers()
        half = len(problem.hidden) + 1
        # the posterior has no bias of its own, as in ours
        self.encoder = nn.Sequential(nn.Flatten(), *_stack(layers[:half], last_bias=False))
        self.decoder = nn.Sequential(*_stack(layers[half:], last_bias=True))

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, 1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        distortion = F.binary_cross_entropy_with_logits(self.decoder(z), x.flatten(1), reduction="sum")
        rate = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return (distortion + rate) / len(x)


def _stack(layers: list[tuple[int, int]], last_bias: bool) -> list[nn.Module]:
    """Linear maps with rectifiers between them."""
    *inner, last = layers
    found: list[nn.Module] = []
    for inputs, outputs in inner:
        found += [nn.Linear(inputs, outputs), nn.ReLU()]
    return [*found, nn.Linear(*last, bias=last_bias)]


def resident(problem: Problem) -> Contestant:
    """An eager loop over rows that stay on the device as uint8, with the fused optimiser: the best of plain PyTorch."""
    return resident_loop("PyTorch, rows resident, fused Adam", PlainVAE(problem), problem)


def resident_loop(name: str, model: nn.Module, problem: Problem) -> Contestant:
    """The eager loop over resident rows, for any module whose forward is the loss."""
    model.to(problem.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    rows = problem.x.to(problem.device)

    def one_pass() -> None:
        order = torch.randperm(len(rows), device=problem.device)
        for batch in order.split(problem.batch):
            loss = model(rows.index_select(0, batch).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return _contestant(name, model, problem, one_pass)


def loader(problem: Problem) -> Contestant:
    """The typical loop: a DataLoader over float tensors, and Adam as it comes."""
    return _typical("PyTorch, DataLoader of tensors", problem, tensors(problem), item=False)


def pil(problem: Problem) -> Contestant:
    """The typical loop over images, as torchvision's MNIST serves them, the loss read at every step."""
    return _typical("PyTorch, DataLoader of PIL images", problem, batches(problem, PilImages(problem.x)), item=True)


class PilImages(Dataset):
    """Grey images, turned into PIL's and back into tensors one at a time, as torchvision's MNIST and ToTensor do."""

    def __init__(self, x: Tensor) -> None:
        self.images = 255 * x[:, 0].numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor]:
        image = Image.fromarray(self.images[i])
        tensor = torch.from_numpy(np.array(image, np.uint8, copy=True))
        return (tensor.view(image.size[1], image.size[0], 1).permute(2, 0, 1).contiguous().float().div(255),)


def tensors(problem: Problem) -> DataLoader:
    """A DataLoader over the rows as float tensors."""
    return batches(problem, TensorDataset(problem.x.float()))


def batches(problem: Problem, dataset: Dataset) -> DataLoader:
    """Shuffled batches, in this process: the rows are small, and workers would only add to their cost."""
    return DataLoader(dataset, batch_size=problem.batch, shuffle=True, num_workers=0)


def _typical(name: str, problem: Problem, loader: Iterable[tuple[Tensor]], item: bool) -> Contestant:
    model = PlainVAE(problem).to(problem.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def one_pass() -> None:
        total = 0.0
        for (x,) in loader:
            loss = model(x.to(problem.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if item:
                total += loss.item()

    return _contestant(name, model, problem, one_pass)


def _contestant(name: str, model: nn.Module, problem: Problem, one_pass: Callable[[], None]) -> Contestant:
    @torch.no_grad()
    def loss() -> float:
        return float(model(problem.checked))

    return Contestant(name, timed(one_pass, problem.device), sum(p.numel() for p in model.parameters()), loss)
