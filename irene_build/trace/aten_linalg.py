"""Formulas of dense linear algebra. Source of the counts: Golub and Van Loan, Matrix Computations, 4th edition.

They are no matrix products of the kind that tensor cores run, so they count as other floating point operations.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from .cost_registry import Called, Work, register_cost

#: flops(m, n, columns of the right-hand side) of one m x n matrix.
Count = Callable[[int, int, int], float]


def _lu(m: int, n: int, k: int) -> float:
    """LU with pivoting (3.2.1): n^2 (m - n/3), 2/3 n^3 where it is square."""
    low, high = min(m, n), max(m, n)
    return float(low * low) * (high - low / 3.0)


def _qr(m: int, n: int, k: int) -> float:
    """Householder QR with Q made (5.2.2): 2 n^2 (m - n/3) each, for m >= n."""
    low, high = min(m, n), max(m, n)
    return 4.0 * low * low * (high - low / 3.0)


def _solved(m: int, n: int, k: int) -> float:
    """Two triangular systems (3.1.2) of n^2 a column."""
    return 2.0 * n * n * k


def _svd(m: int, n: int, k: int) -> float:
    """Golub-Reinsch with both factors (8.6.1)."""
    low, high = min(m, n), max(m, n)
    return 4.0 * high * high * low + 8.0 * high * low * low + 9.0 * low**3


def _cubic(factor: float) -> Count:
    """``factor`` n^3."""
    return lambda m, n, k: factor * n**3


_COUNTS: dict[str, Count] = {
    **dict.fromkeys(("_linalg_solve_ex", "linalg_solve_ex"), lambda m, n, k: _lu(n, n, k) + _solved(m, n, k)),
    **dict.fromkeys(
        ("linalg_lu_factor_ex", "linalg_lu", "_lu_with_info", "_linalg_det", "_linalg_slogdet"), _lu
    ),
    **dict.fromkeys(
        ("linalg_lu_solve", "lu_solve", "cholesky_solve", "_cholesky_solve_helper", "linalg_ldl_solve"),
        _solved,
    ),
    **dict.fromkeys(("linalg_solve_triangular", "triangular_solve"), lambda m, n, k: float(n * n * k)),
    **dict.fromkeys(("linalg_cholesky_ex", "cholesky", "linalg_ldl_factor_ex"), _cubic(1 / 3)),
    **dict.fromkeys(("linalg_inv_ex", "inverse"), _cubic(2.0)),
    "cholesky_inverse": _cubic(2 / 3),
    "linalg_qr": _qr,
    **dict.fromkeys(("geqrf", "linalg_householder_product"), lambda m, n, k: _qr(m, n, k) / 2),
    "ormqr": lambda m, n, k: 4.0 * m * n * k,
    "linalg_lstsq": lambda m, n, k: _qr(m, n, k) / 2 + 4.0 * m * n * k,
    "_linalg_svd": _svd,
    "linalg_pinv": lambda m, n, k: _svd(m, n, k) + 2.0 * m * n * min(m, n),
    # Tridiagonal QR with vectors (8.3), Hessenberg QR with and without them (7.5).
    "_linalg_eigh": _cubic(9.0),
    "linalg_eig": _cubic(25.0),
    **dict.fromkeys(("linalg_eigvals", "_linalg_eigvals"), _cubic(10.0)),
    # Six products (Al-Mohy and Higham, degree 13) and a solve.
    "linalg_matrix_exp": _cubic(12 + 8 / 3),
}
#: Operators whose matrix is not their first operand.
_SECOND = frozenset(("cholesky_solve", "_cholesky_solve_helper", "triangular_solve", "lu_solve"))


@register_cost(*_COUNTS)
def _decomposition(call: Called) -> Work:
    matrix = call.inputs[1 if call.name in _SECOND else 0]
    m, n = (int(size) for size in matrix.shape[-2:])
    other = next((t for t in call.inputs if t is not matrix and t.dim() and t.is_floating_point()), None)
    columns = 1
    if other is not None:
        columns = int(other.shape[-1]) if other.dim() >= matrix.dim() else 1
    batch = prod(matrix.shape[:-2])
    each = 4.0 if matrix.is_complex() else 1.0
    return Work("Custom", elementwise_flops=each * batch * _COUNTS[call.name](m, n, columns))


@register_cost("linalg_cross")
def _cross(call: Called) -> Work:
    return Work("Elementwise", elementwise_flops=3.0 * call.elements)


@register_cost("_linalg_check_errors")
def _check(call: Called) -> Work:
    return Work("Reduction")
