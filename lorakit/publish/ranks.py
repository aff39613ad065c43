"""One rank for all modules of an adapter, for readers that know one rank only."""

from __future__ import annotations

import torch

from lorakit.adapters.plain_lora import Product, Products


def one_rank(products: Products) -> dict[str, Product]:
    """The products with the largest rank: columns of B and rows of A that are zero are added.

    B A is the same to the bit.
    """
    rank = max(product.a.shape[0] for product in products.values())
    return {path: _padded(product, rank) for path, product in products.items()}


def _padded(product: Product, rank: int) -> Product:
    more = rank - product.a.shape[0]
    b = torch.nn.functional.pad(product.b, (0, more))
    a = torch.nn.functional.pad(product.a, (0, 0, 0, more))
    return Product(b, a)
