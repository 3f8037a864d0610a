"""Options of `train` and `pretrain` that make a run of seconds."""

QUICK = [
    "--batch",
    "2",
    "--stage.crop-shape",
    "16,16,16",
    "--stage.crop-spacing-mm",
    "4",
    "--val-every",
    "2",
    "--device",
    "cpu",
]
