"""PHResNet-18 in PyTorch, as the released code computes it: what the benchmark is measured by.

Imported only where torch is installed. Each step builds every kernel once, as a sum of Kronecker
products, and convolves with it; layouts, loss and optimizer are torch's own, on all of the CPU's
cores. The weights come from our model, so that losses can be compared.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Convolution(nn.Module):
    """The released PHC layer: A and F are learnt, the kernel is their Kronecker sum."""

    def __init__(self, layer, index):
        super().__init__()
        A, F = (np.asarray(v[...], np.float32) for v in (layer.multiplication.A, layer.F))
        if index is not None:
            A, F = A[index], F[index]
        self.A = nn.Parameter(torch.tensor(A))
        self.F = nn.Parameter(torch.tensor(F.transpose(0, 4, 3, 1, 2).copy()))
        self.stride, self.padding = layer.strides, layer.padding[0][0]

    def forward(self, x):
        """Convolve with Σ A_i ⊗ F_i; torch's kernels have the outputs first."""
        kernel = torch.einsum("iab,iqpkl->bqapkl", self.A, self.F)
        b, q, a, p, *taps = kernel.shape
        kernel = kernel.reshape(b * q, a * p, *taps)
        return functional.conv2d(x, kernel, stride=self.stride, padding=self.padding)


def _norm(layer, index) -> nn.BatchNorm2d:
    scale = layer.scale[...] if index is None else layer.scale[...][index]
    return nn.BatchNorm2d(len(scale), eps=layer.epsilon, momentum=1 - layer.momentum)


class Block(nn.Module):
    """shortcut(x) + α ReLU(BN(PHC(ReLU(BN(PHC x)))))."""

    def __init__(self, residual, index=None):
        super().__init__()
        body = residual.block
        layers = []
        for conv, norm in zip(body.convs, body.norms):
            layers += [Convolution(conv, index), _norm(norm, index), nn.ReLU()]
        self.body, self.shortcut = nn.Sequential(*layers), nn.Identity()
        if residual.shortcut is not None:
            conv, norm = residual.shortcut.layers
            self.shortcut = nn.Sequential(Convolution(conv, index), _norm(norm, index))
        alpha = residual.alpha[...] if index is None else residual.alpha[...][index]
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def forward(self, x):
        """Apply it."""
        return self.shortcut(x) + self.alpha * self.body(x)


class Network(nn.Module):
    """A copy of a `PHResNet` with init="phydi"."""

    def __init__(self, model):
        super().__init__()
        layers = [Convolution(model.stem, None), _norm(model.stem_norm, None), nn.ReLU()]
        for stage in model.stages:
            if stage.first is not None:
                layers.append(Block(stage.first))
            if stage.rest is not None:
                layers += [Block(stage.rest.blocks, k) for k in range(stage.rest.depth)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(model.head.in_features, model.head.out_features)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(np.asarray(model.head.kernel[...]).T.copy()))
            self.head.bias.copy_(torch.tensor(np.array(model.head.bias[...])))

    def forward(self, x):
        """(batch, channels, height, width) to logits."""
        return self.head(self.layers(x).mean((2, 3)))


def training(model, batch: dict):
    """One step of SGD as a function without arguments that returns the loss before it."""
    network = Network(model)
    rule = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.tensor(np.asarray(batch["image"]).transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(np.asarray(batch["label"], np.int64))

    def step() -> float:
        rule.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        rule.step()
        return loss.item()

    return step
