"""One rank of a small training that goes wrong on the second rank alone; prints how it ended. Started by ``support.ranks``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from twinray.errors import TwinrayError
from twinray.runs.folder import RunFolder
from twinray.training.engine import Loop, train
from twinray.training.ranks import joined_ranks


def main() -> None:
    kind, out = sys.argv[1], Path(sys.argv[2])
    with joined_ranks(torch.device("cpu")) as ranks:
        torch.manual_seed(1)
        model = nn.Linear(4, 1)

        def step(batch, number):
            loss = model(batch).square().mean()
            loss.backward()
            lost = kind == "loss" and ranks.rank == 1 and number == 3
            return {"loss": loss.detach() + (float("inf") if lost else 0.0)}

        loop = Loop(
            label="test",
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step=step,
            batches=lambda epoch, first: iter([torch.ones(2, 4)] * (5 - first)),
            steps_per_epoch=5,
            epochs=4,
            rates=lambda number: [0.1],
            images_per_step=4,
            seed=3,
            log_every=1,
            ranks=ranks,
            mean_gradients=True,
            # a decision that the ranks would take differently, were each asked
            fault=lambda figures: "odd" if kind == "fault" and ranks.rank == 0 else None,
        )
        run = RunFolder(out)
        if ranks.main:
            run.checkpoints.mkdir(parents=True)
        try:
            train(loop, run)
            print("finished")
        except TwinrayError as error:
            print("told by another" if error.told else str(error))


if __name__ == "__main__":
    main()
