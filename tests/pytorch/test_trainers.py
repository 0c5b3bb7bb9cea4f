"""TrialLoader under trainers as they are: Lightning, Accelerate and torchrun, stopped and resumed."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402

BATCH = 8
EPOCHS = 3
# Trainers advise on loggers and on worker processes, which this loader has not.
pytestmark = pytest.mark.filterwarnings("ignore")


def make_loader(volumes):
    return TrialLoader(TrialDataset(volumes.path), BATCH, shuffle=True, seed=3, threads=2)


def make_validation_loader(volumes):
    return TrialLoader(TrialDataset(volumes.path), BATCH, threads=2)


def list_valid(batch):
    return batch["trial"][batch["valid"]].tolist()


def find_order(volumes, limit=None):
    """(epoch, trials) of each batch of all epochs: by a plain loop, with set_epoch as the documentation has it."""
    loader, order = make_loader(volumes), []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        order += [(epoch, list_valid(batch)) for _, batch in zip(range(limit or len(loader)), loader, strict=False)]
    return order


def check_epochs(order, trials, limit=None):
    """Epochs are different permutations, or the beginnings of such."""
    epochs = [[trial for epoch, batch in order if epoch == number for trial in batch] for number in range(EPOCHS)]
    for seen in epochs:
        assert len(set(seen)) == len(seen) == (trials if limit is None else limit * BATCH)
        assert epochs.count(seen) == 1


@pytest.fixture
def fit(volumes, tmp_path):
    """Train with Lightning, a checkpoint at each step: batches seen, and the weights at the end."""
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(int(np.prod(volumes.stored.shape[1:])), 1)
            torch.nn.init.zeros_(self.layer.weight)
            self.seen = []

        def training_step(self, batch, number):
            self.seen.append((self.current_epoch, list_valid(batch)))
            return (self.layer(batch["betas"][batch["valid"]].flatten(1)) - 1).square().mean()

        def validation_step(self, batch, number):
            assert len(list_valid(batch)) <= BATCH

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-4)

    def run(limit=None, resume=None):
        each_step = ModelCheckpoint(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            max_epochs=EPOCHS,
            limit_train_batches=limit or 1.0,
            accelerator="cpu",
            callbacks=[each_step],
            default_root_dir=tmp_path,
            **quiet,
        )
        model = Model()
        trainer.fit(model, make_loader(volumes), make_validation_loader(volumes), ckpt_path=resume)
        return model.seen, model.layer.weight.detach().clone()

    return run


@pytest.mark.parametrize("limit", [None, 2])
def test_lightning_resumed_at_any_step_sees_what_the_undisturbed_run_sees(volumes, fit, tmp_path, limit):
    seen, weights = fit(limit)
    assert seen == find_order(volumes, limit)
    check_epochs(seen, volumes.trials, limit)
    steps = len(seen) // EPOCHS
    for step in sorted({1, steps, steps + 1, 2 * steps - 1}):
        rest, resumed = fit(limit, resume=tmp_path / f"steps/step={step}.ckpt")
        assert seen[step:] == rest
        assert torch.equal(resumed, weights)


def test_accelerate_resumed_in_the_middle_of_an_epoch_goes_on_there(volumes, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def run(batches, folder=None):
        """Batches of three epochs, of which *batches* are taken; the state saved behind them, or resumed from."""
        accelerator = accelerate.Accelerator(cpu=True)
        loader = accelerator.prepare(make_loader(volumes))
        accelerator.register_for_checkpointing(loader)
        if folder is not None:
            accelerator.load_state(folder)
        seen = []
        while len(seen) < batches:
            for batch in loader:
                seen.append(list_valid(batch))
                if len(seen) == batches:
                    break
        return seen, accelerator.save_state(tmp_path / "state")

    order = [trials for _, trials in find_order(volumes)]
    for stop in (4, len(order) // EPOCHS, len(order) // EPOCHS + 1):
        seen, folder = run(stop)
        rest, _ = run(len(order) - stop, folder)
        assert seen + rest == order


RANK = """
import json, sys
import torch.distributed as dist
from nsd_zarr.torch import TrialDataset, TrialLoader

store, out, stop = sys.argv[1:]
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
loader = TrialLoader(TrialDataset(store), 8, shuffle=True, seed=3, threads=2, rank=rank, world_size=world)
state = [json.load(open(out + ".state"))] if stop == "resume" else None
if state:
    loader.load_state_dict(state[0])
seen = []
while loader.state_dict()["epoch"] < 3 and len(seen) != (int(stop) if not state else -1):
    for batch in loader:
        shares = [None] * world
        dist.all_gather_object(shares, batch["trial"][batch["valid"]].tolist())
        seen.append((batch["trial"].shape[0], sum(shares, [])))
        if not state and len(seen) == int(stop):
            break
states = [None] * world
dist.all_gather_object(states, loader.state_dict())
assert states == [states[0]] * world
if rank == 0:
    json.dump(seen, open(out, "w"))
    json.dump(states[0], open(out + ".state", "w"))
dist.destroy_process_group()
"""


def test_ranks_of_torchrun_share_each_batch_and_go_on_at_another_world_size(volumes, tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    out = tmp_path / "seen"

    def launch(ranks, stop):
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", tmp_path / "rank.py"]
        done = subprocess.run(
            [sys.executable, *words, volumes.path, out, str(stop)], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    order = [trials for _, trials in find_order(volumes)]
    stop = len(order) // EPOCHS + 2
    first, rest = launch(2, stop), launch(1, "resume")
    assert {rows for rows, _ in first} == {BATCH // 2}
    assert [trials for _, trials in first + rest] == order
    check_epochs(
        [(number // (len(order) // EPOCHS), trials) for number, (_, trials) in enumerate(first + rest)], volumes.trials
    )
