"""Equal tuning: the trials of a small search, the same for every arm."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

from twinray.studies.plan.file import Between, Search


def trials(search: Search) -> list[dict[str, Any]]:
    """The values that every arm tries, in order.

    A space of lists alone is a grid, shuffled where the budget is smaller. With a range every trial is drawn: Bergstra and
    Bengio (2012) show that random trials cover ranges better than grids.

    Raises:
        ValueError: a budget below 1, a range without a budget, or a range whose ends do not ascend.
    """
    space = search.space
    for name, values in space.items():
        if isinstance(values, list) and not values:
            raise ValueError(f"{name} has no value to try")
        if isinstance(values, Between) and not values.low < values.high:
            raise ValueError(f"{name}: low {values.low:g} is not below high {values.high:g}")
        if isinstance(values, Between) and values.log and values.low <= 0:
            raise ValueError(f"{name}: low must be above 0 with log")
    if search.budget is not None and search.budget < 1:
        raise ValueError(f"expected a budget of 1 or more, got {search.budget}")
    draws = random.Random(search.seed)
    if any(isinstance(values, Between) for values in space.values()):
        if search.budget is None:
            raise ValueError("a range needs a budget: the number of trials")
        return [_drawn(space, draws) for _ in range(search.budget)]
    lists = [values for values in space.values() if isinstance(values, list)]
    grid = [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]
    if search.budget is None or search.budget >= len(grid):
        return grid
    return [grid[i] for i in sorted(draws.sample(range(len(grid)), search.budget))]


def _drawn(space: Mapping[str, Any], draws: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, Between):
            ends = (values.low, values.high)
            low, high = map(math.log, ends) if values.log else ends
            drawn = draws.uniform(low, high)
            # four digits: a value that people can type again
            found[name] = float(f"{math.exp(drawn) if values.log else drawn:.4g}")
        else:
            found[name] = draws.choice(values)
    return found
