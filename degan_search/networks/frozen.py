"""Networks that are only evaluated: the teacher beside DeGAN, the generator beside the student."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def freeze(model: nn.Module, fold_norms: bool = False) -> nn.Module:
    """Copy `model` for evaluation alone: the same function in eval mode, faster; `model` is unchanged.

    Gradients reach the input, not the parameters. Weights are channels_last. The copy must stay in eval mode.

    Args:
        model: any network; it may be in train mode.
        fold_norms: in every nn.Sequential, fold a BatchNorm that directly follows a convolution into it, which
            is faster still (the DCGAN generator). A teacher's stay: their statistics are compared with those
            of generated images. AlexNet's would stay anyway: they follow a ReLU or a pooling, and what follows
            them pads with zeros, which a folded shift would miss.
    """
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.detach_()  # as requires_grad_(False), which copies of TorchScript modules refuse
    if fold_norms:
        for chain in frozen.modules():
            if type(chain) is nn.Sequential:  # a class derived from it may run its layers in another order
                _fold_norms(chain)
    return frozen.to(memory_format=torch.channels_last)


def _fold_norms(chain: nn.Sequential) -> None:
    for index, (layer, norm) in enumerate(pairwise(list(chain))):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            chain[index] = fuse_conv_bn_eval(layer, norm, transpose=transposed)
            chain[index + 1] = nn.Identity().eval()
