"""From what callers hand in to contiguous columns, with errors that name the argument."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError

T = TypeVar("T", bound=np.generic)
Reals = npt.NDArray[np.float64]


def as_reals(name: str, value: npt.ArrayLike) -> Reals:
    """The argument as float64, None and masked elements as NaN; InputError naming it where it is not numeric."""
    array = _array(name, value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        array = np.where(np.ma.getmaskarray(value), np.nan, array)
    if array.dtype == np.float64:
        return array
    if array.dtype.kind == "O" and array.ndim and not any(isinstance(one, str | bytes) for one in array.flat):
        with contextlib.suppress(TypeError, ValueError):
            return array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers, was {_described(value, array)}")
    return array.astype(np.float64)


def as_flags(name: str, value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The argument as booleans; integers 0 and 1 are accepted, anything else is an InputError naming it."""
    array = _array(name, value)
    if array.dtype == np.bool_ and not np.ma.is_masked(value):
        return array
    if array.dtype.kind not in "iu" or np.ma.is_masked(value) or not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} must be True for a call and False for a put, was {_described(value, array)}")
    return array.astype(np.bool_)


def broadcast(arguments: Mapping[str, npt.NDArray[np.generic]]) -> tuple[int, ...]:
    """Common shape of the named arguments; InputError giving all their shapes where there is none."""
    shapes = [array.shape for array in arguments.values()]
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(f"{name} {array.shape}" for name, array in arguments.items())
        raise InputError(f"shapes do not broadcast: {listed}") from None


def column(array: npt.NDArray[T], shape: tuple[int, ...]) -> npt.NDArray[T]:
    """The array broadcast to the shape, as one dimension: contiguous, aligned and writable, a copy where it is not.

    For numba a read-only or unaligned array is another type, for which it would compile the kernel once more.
    """
    if array.shape != shape:
        if array.ndim == 0:
            # Ten times faster than broadcasting, for the scalars that most calls have.
            filled = np.empty(math.prod(shape), array.dtype)
            filled.fill(array[()])
            return filled
        array = np.broadcast_to(array, shape)
    flags = array.flags
    if not (flags.c_contiguous and flags.writeable and flags.aligned):
        array = array.copy(order="C")
    return array.reshape(-1)


def _array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array of numbers: {error}") from error


def _described(value: npt.ArrayLike, array: npt.NDArray[np.generic]) -> str:
    return repr(value) if array.ndim == 0 else f"an array of {array.dtype}"
