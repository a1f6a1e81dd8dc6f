"""What runs beside the steps of a run: said here, so that `train` reads as its steps in order."""

import gc
from typing import Any

from pronk.model.bundle import Bundle
from pronk.pools import start_beside
from pronk.training.features import Features
from pronk.training.kept_model import Kept, choose_golden, compare_frameworks, fit_unknown
from pronk.training.results import draw_example
from pronk.training.run_folder import Run
from pronk.training.surveys import study


class Beside:
    """What runs beside the steps of a run; each thing starts as soon as what it needs is there. Use it as a context.

    | result     | runs in                | starts after            | asked for by      |
    |------------|------------------------|-------------------------|-------------------|
    | body       | a thread: Keras's import leaves the workers the other core | the start | phase 2 |
    | golden     | a worker               | phase 1                 | writing the model |
    | studies    | a worker               | phase 1                 | the report        |
    | example    | a worker               | phase 1                 | the report        |
    | unknown    | a worker               | the choice of the model | writing the model |
    | comparison | a thread               | writing the model       | the end           |
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *exception: object) -> None:
        gc.unfreeze()

    def at_start(self) -> None:
        """While the workers check the photos, extract features and solve for the head, import Keras."""
        self.body = start_beside(lambda: import_network(self.run))

    def after_phase_one(self, features: Features, strength: float, run: Run) -> None:
        """While phase 2 trains, look at the photos in other ways; the run knows by now what was chosen."""
        self.run = run
        pool, settings = run.pool, run.settings
        self.golden = pool.submit(choose_golden, features.dataset, settings)
        self.studies = pool.submit(study, features, strength, settings)
        self.example = pool.submit(draw_example, features, settings)

    def after_choice(self, kept: Kept, features: Features) -> None:
        """While the model is written, fit the distance by which it tells photos of other things."""
        is_frozen = kept.comparison["kept"] == "frozen"  # its features are in the cache
        suffix = None if is_frozen else kept.network.cut_suffix(features)
        self.unknown = self.run.pool.submit(fit_unknown, suffix, features, self.run.settings)

    def after_writing(self, network: Any, bundle: Bundle) -> None:
        """While the model is judged, compare what Keras says with it."""
        self.comparison = start_beside(lambda: compare_frameworks(network, bundle))


def import_network(run: Run) -> Any:
    """Build the Keras model but for its head, of which nothing is known yet; importing the framework is most of it.

    No garbage is looked for meanwhile among the million objects that it makes to stay, which is a quarter of its time,
    nor among them afterwards, until `gc.unfreeze`.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        from pronk.backbone.keras_network import build_body

        return build_body(run.backbone, size=run.settings.image_size)
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
