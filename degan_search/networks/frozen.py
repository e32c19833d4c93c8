"""Networks that are only evaluated: the teacher beside DeGAN, the generator beside the student."""

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from degan_search.networks.layers import channels_last

NAMED = (("conv1", "bn1"), ("conv2", "bn2"), ("conv", "bn"))
"""Convolutions of torchvision's `BasicBlock` and `BasicConv2d`, and the norms that follow them."""


def freeze(model: nn.Module, fold_norms: bool = False) -> nn.Module:
    """Copy `model` for evaluation alone: the same function in eval mode, faster; `model` is unchanged.

    Gradients reach the input, not the parameters. Weights are channels_last. The copy must stay in eval mode.

    Args:
        model: any network; it may be in train mode.
        fold_norms: fold each BatchNorm that directly follows a convolution into it, which is faster still (the
            DCGAN generator, ResNet, Inception); not where its statistics are measured. AlexNet's norms stay: they
            follow a ReLU or a pooling, and the next convolution pads with zeros, which the shift does not change.
    """
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.detach_()  # as requires_grad_(False), which copies of TorchScript modules refuse
    if fold_norms:
        for chain in frozen.modules():
            if type(chain) is nn.Sequential:  # a class derived from it may run its layers in another order
                _fold_norms(chain)
            elif type(chain).__module__.startswith("torchvision.models."):
                _fold_named(chain)
    return channels_last(frozen)


def _fold_named(block: nn.Module) -> None:
    """Fold the norms of a block of torchvision's, which runs its layers by name."""
    for layer, norm in NAMED:
        if hasattr(block, layer) and hasattr(block, norm):
            setattr(block, layer, fuse_conv_bn_eval(getattr(block, layer), getattr(block, norm)))
            setattr(block, norm, nn.Identity().eval())


def _fold_norms(chain: nn.Sequential) -> None:
    for index, (layer, norm) in enumerate(pairwise(list(chain))):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            chain[index] = fuse_conv_bn_eval(layer, norm, transpose=transposed)
            chain[index + 1] = nn.Identity().eval()
