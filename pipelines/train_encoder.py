"""Train an encoding model, from images to the voxels of a region, and score it against the noise ceiling.

    python pipelines/train_encoder.py STORE IMAGES [--config configs/train_encoder.yaml] [--out encoder]

IMAGES: nsd_stimuli.hdf5, or what nsd-zarr images makes of it. A linear model of simple features of images is fitted to
single trials, and tested on shared1000, repeats averaged. For one of your own change `describe` and `torch.nn.Linear`.
"""

import argparse
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure

import nsd_zarr
from nsd_zarr.torch import TrialDataset, TrialLoader


def describe(images, grid):
    """Features: the mean colour in each cell of a grid. (image, height, width, 3) uint8 to (image, 3 * grid²)."""
    pixels = images.permute(0, 3, 1, 2).float() / 64 - 2
    return torch.nn.functional.adaptive_avg_pool2d(pixels, grid).flatten(1)


def score(predicted, measured):
    """Explained variance in percent: 100 r², with the sign of r. (image, voxel) twice to (voxel,)."""
    a, b = predicted - predicted.mean(0), measured - measured.mean(0)
    r = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)
    return 100 * r * r.abs()


def read_test(store, images, settings):
    """Features of the test images, (image, feature), and a Dataset of mean responses, (image, voxel with all data)."""
    region = nsd_zarr.open_dataset(store).nsd.roi(settings.roi, complete=True).nsd.zscore("session")
    if "ncsnr" not in region:
        region = region.assign(ncsnr=region.nsd.compute_ncsnr())
    test = region.nsd.split("shared1000").test.nsd.average_repeats().load()
    trials, features = TrialDataset(store, trials="test", roi=settings.roi, missing="drop", images=images), {}
    for batch in TrialLoader(trials, settings.batch_size, device=settings.device):
        features |= zip(batch["nsd_id"].tolist(), describe(batch["image"], settings.grid), strict=True)
    return torch.stack([features[nsd_id] for nsd_id in test.nsd_id.values.tolist()]), test


def train(store, images, settings, features, responses):
    """The fitted model, and its mean score on the test images every few steps: [(step, score), ...]."""
    options = {"roi": settings.roi, "missing": "drop", "zscore": "session", "images": images}
    trials = TrialDataset(store, trials="train", **options)
    loader = TrialLoader(trials, settings.batch_size, shuffle=True, seed=settings.seed, device=settings.device)
    model = torch.nn.Linear(features.shape[1], responses.shape[1], device=settings.device)
    torch.nn.init.zeros_(model.weight)  # What the images do not teach stays zero.
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * len(loader))
    curve = []  # Each epoch is shuffled anew.
    for batch in (batch for _ in range(settings.epochs) for batch in loader):
        if schedule.last_epoch % settings.score_every == 0:
            curve.append((schedule.last_epoch, score(model(features), responses).mean().item()))
        rows = batch["valid"]  # The last batch of an epoch is filled up.
        loss = (model(describe(batch["image"][rows], settings.grid)) - batch["betas"][rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False), curve


def draw(scores, ceiling, count, curve):
    """Score of each voxel against its ceiling, between the 95 % bounds of *count* test images; and the training."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(ceiling, scores, s=3, alpha=0.4)
    r = torch.linspace(0, 0.999, 200)
    for errors, style in ((0, "k-"), (-1.96, "k:"), (1.96, "k:")):  # Fisher's z has the standard error 1 / sqrt(n - 3).
        left.plot(100 * r**2, 100 * (r.atanh() + errors / (count - 3) ** 0.5).tanh().clamp_min(0) ** 2, style, lw=1)
    left.set(xlabel="noise ceiling (%)", ylabel="explained variance (%)", title=f"{len(scores)} voxels, {count} images")
    right.plot(*zip(*curve, strict=True), label="model")
    right.axhline(ceiling.nanmean(), color="k", ls="--", lw=1, label="noise ceiling")
    right.set(xlabel="step", ylabel="explained variance (%)", title="mean over voxels")
    right.legend(loc="lower right")
    return figure


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("store")
parser.add_argument("images")
parser.add_argument("--config", type=Path, default=Path(__file__).parent.parent / "configs/train_encoder.yaml")
parser.add_argument("--out", type=Path, default=Path("encoder"))
if __name__ == "__main__":
    options = parser.parse_args()
    settings = argparse.Namespace(**yaml.safe_load(options.config.read_text()))
    features, test = read_test(options.store, options.images, settings)
    responses = torch.from_numpy(test.betas.values).to(settings.device)
    model, curve = train(options.store, options.images, settings, features, responses)
    scores, ceiling = score(model(features), responses).cpu(), torch.from_numpy(test.nsd.noise_ceiling().values)
    print(f"{len(features)} test images: explained {scores.mean():.1f} %, noise ceiling {ceiling.nanmean():.1f} %")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": model.state_dict(), "scores": scores, "ceiling": ceiling}, options.out / "encoder.pt")
    test.nsd.to_nifti(test.ncsnr.copy(data=scores)).to_filename(options.out / "score.nii.gz")
    draw(scores, ceiling, len(features), curve).savefig(options.out / "encoder.png")
