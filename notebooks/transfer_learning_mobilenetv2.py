# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Alpaca or not? Transfer learning with MobileNetV2
#
# A few hundred photos are far too few to learn from scratch what wool, ears and legs look like. But a network that
# has seen a million other photos knows a great deal about ears already. **Transfer learning** keeps what it knows and
# teaches it only what is new. It takes four steps, shown here in plain Keras:
#
# 1. a data set from folders of photos,
# 2. augmentation: more views of the same photos,
# 3. a pre-trained MobileNetV2 with a new head, of which only the head learns (phase 1),
# 4. fine-tuning: the last blocks learn too, very gently (phase 2).
#
# On the way we measure a trap that many notebooks fall into, and ask how much an accuracy on some fifty photos is
# worth. At the end, [pronk](../README.md) does all of it again in three lines. Everything runs on a plain CPU in a
# few minutes.

# %% [markdown]
# ## Before we start: photos and weights
#
# Put your photos into `dataset/alpaca` and `dataset/not_alpaca`, beside this notebook or one folder above it; the
# README says where to get them. Without them the next cell **draws** some, so that the notebook runs as it is, even
# without a network.
#
# The weights follow the photos: for real ones those learned on ImageNet, which Keras downloads once (or, without a
# network, those in the folder `$PRONK_WEIGHTS`); for drawn ones a small network that comes with pronk. This is the
# only cell about files. What the rest needs from it is `PHOTOS`, `WEIGHTS`, `ALPHA` (how wide the network is) and
# `RATE` (how fast its head may learn).

# %%
import csv
import logging
import math
import os
import shutil
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before Keras is imported: fewer notes from TensorFlow

import keras
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from keras import layers
from matplotlib.colors import ListedColormap, to_rgb
from PIL import Image

import pronk
from pronk.photos.drawing import KINDS, draw_photo

SEED, SIZE = 42, 160  # MobileNetV2 was trained at 224 pixels; 160 take half the time and cost little accuracy
WORK = Path("notebook-work")  # all that this notebook writes


def draw_dataset(folder, photos_per_class=120):
    """Draw alpacas and as many other things, the same ones every time."""
    others = [kind for kind in KINDS if kind != "alpaca"]
    for number in range(photos_per_class):
        for label, kind in (("alpaca", "alpaca"), ("not_alpaca", others[number % len(others)])):
            path = folder / label / f"{kind}_{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_photo(kind, np.random.default_rng([SEED, number, len(label)]), (400, 300)).save(path, quality=92)
    return folder


real = [folder for folder in (Path("dataset"), Path("../dataset")) if (folder / "alpaca").is_dir()]
if real:
    mine = Path(os.environ.get("PRONK_WEIGHTS", "")) / "mobilenet_v2_1.0_224_no_top.h5"
    PHOTOS, WEIGHTS, ALPHA, RATE = real[0], str(mine) if mine.is_file() else "imagenet", 1.0, 1e-3
else:  # the small network's features vary six times less than ImageNet's, so its head takes larger steps
    mine = Path(pronk.__file__).parent / "backbone" / "offline_weights" / "offline_mobilenet_v2_0.35.h5"
    PHOTOS, WEIGHTS, ALPHA, RATE = draw_dataset(WORK / "photos"), str(mine), 0.35, 6e-3

keras.utils.set_random_seed(SEED)
warnings.filterwarnings("ignore", message="`shuffle=True`")  # Keras says so although our data sets do shuffle
logging.getLogger("tensorflow").setLevel(logging.ERROR)
# %config InlineBackend.figure_formats = ["jpeg"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "pil_kwargs": {"quality": 88, "subsampling": 0}}
YES, NO, GREY, WRONG = "#c4601d", "#2f6f8f", "#8a8a8a", "#b3202a"  # alpaca, not alpaca, neither, a mistake
plt.rcParams.update({"figure.dpi": 100, "font.size": 9.5, "axes.titlesize": 10})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
print("your photos" if real else "drawn photos", f"and a MobileNetV2 of width {ALPHA}")

# %% [markdown]
# ## Step 1: a data set from folders
#
# One folder per class, and `image_dataset_from_directory` does the rest: it finds the files, takes the folder's name
# as the answer, decodes, resizes and batches. Four of its arguments deserve a thought.
#
# - `validation_split` holds out every fifth photo. The network will never learn from those, which is why they can
#   tell us something.
# - `seed` keeps the split the same from run to run. Otherwise you would soon validate on photos that a former run
#   learned from.
# - `crop_to_aspect_ratio` cuts out the middle instead of squeezing the whole photo into a square. Nobody has ever
#   seen a squeezed alpaca.
# - `class_names` fixes the order: `alpaca` comes last, so it is class 1, and the network's one output will mean *how
#   much alpaca*.

# %%
CLASSES = sorted((folder.name for folder in PHOTOS.iterdir() if folder.is_dir()), key=lambda name: name == "alpaca")

train, val = keras.utils.image_dataset_from_directory(
    PHOTOS,
    class_names=CLASSES,
    label_mode="binary",
    validation_split=0.2,
    subset="both",
    seed=SEED,
    image_size=(SIZE, SIZE),
    crop_to_aspect_ratio=True,
    batch_size=32,
)
held_out = [Path(path) for path in val.file_paths]

# %% [markdown]
# Look at the data before you look at any number. How many photos are there of each class, and what is on them?

# %%
figure, axis = plt.subplots(figsize=(7, 1.3))
for part, data in (("training", train), ("validation", val)):
    alpacas = sum(Path(path).parent.name == "alpaca" for path in data.file_paths)
    others = len(data.file_paths) - alpacas
    left = axis.barh(part, others, color=NO)
    right = axis.barh(part, alpacas, left=others, color=YES)
    axis.bar_label(left, label_type="center", color="white")
    axis.bar_label(right, label_type="center", color="white")
axis.invert_yaxis()
axis.set_xticks([])
axis.spines[:].set_visible(False)
axis.tick_params(length=0)
axis.legend([left, right], CLASSES, loc="center left", bbox_to_anchor=(1, 0.5))
axis.set_title("number of photos", loc="left")
plt.show()

guess = max(alpacas, others) / len(held_out)
print(f"Whoever always names the larger class is right on {guess:.0%} of the validation photos: the score to beat.")


# %%
def show(photos, titles, *, columns, colours=None):
    rows = math.ceil(len(photos) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, rows * (9 / columns + 0.22)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, axis in zip(range(len(photos)), axes.flat, strict=False):
        axis.imshow(np.asarray(photos[number]).clip(0, 255).astype("uint8"))
        axis.set_title(titles[number], pad=3, color=colours[number] if colours else "black")
    figure.tight_layout(pad=0.3)
    plt.show()


images, answers = (np.asarray(part) for part in next(iter(train)))
answers = answers[:, 0].astype(int)
some = slice(0, 14)
show(images[some], [CLASSES[a] for a in answers[some]], columns=7, colours=[(NO, YES)[a] for a in answers[some]])

# %% [markdown]
# ## Step 2: augmentation
#
# A mirrored alpaca is still an alpaca. Telling the network so costs two layers, and it sees every photo a little
# differently in every epoch, which makes it harder to learn the photos by heart.
#
# Here is **one** photo, augmented nine times. The picture is worth having: 0.2 is a share of a full *turn*, so
# `RandomRotation(0.2)` tilts by up to 72 degrees either way, far more than any photographer would. The corners that
# come free are filled by mirroring the photo's edge. If a view looks like nothing you would ever upload, use a
# smaller number.

# %%
augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)], name="augmentation")

one = images[np.flatnonzero(answers == 1)[0]]
nine = augmentation(np.repeat(one[None], 9, axis=0), training=True)
show([one, *nine], ["the photo", *(f"view {number}" for number in range(1, 10))], columns=5)

# %% [markdown]
# ## Step 3: a new head on a network that can see (phase 1)
#
# With the Functional API a model is a chain of calls. Ours reads like the way of a photo:
#
# | | shape | |
# |---|---|---|
# | photo | 160 x 160 x 3 | pixels from 0 to 255 |
# | augmentation | 160 x 160 x 3 | acts in training only |
# | rescaling | 160 x 160 x 3 | to -1 ... 1, as MobileNetV2 was trained; part of the model, so nobody forgets it |
# | MobileNetV2 | 5 x 5 x 1280 | for each of 25 places, 1280 answers to questions such as "is this woolly?" |
# | pooling | 1280 | the mean over the places |
# | dropout | 1280 | in training, forgets a fifth of them, another fifth each time |
# | dense | 1 | how much alpaca: above 0 yes, below 0 no |
#
# `base.trainable = False` freezes all of MobileNetV2. The head starts from random numbers and makes large, wild
# errors at first; if the base learned from those, it would forget what we came for.

# %%
base = keras.applications.MobileNetV2(input_shape=(SIZE, SIZE, 3), alpha=ALPHA, include_top=False, weights=WEIGHTS)
base.trainable = False

inputs = keras.Input((SIZE, SIZE, 3))
x = augmentation(inputs)
x = layers.Rescaling(1 / 127.5, offset=-1)(x)
x = base(x, training=False)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
outputs = layers.Dense(1, name="head")(x)
model = keras.Model(inputs, outputs)


def compile_model(rate):
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0, name="accuracy")],
    )


compile_model(RATE)
start = time.perf_counter()
phase_1 = model.fit(train, validation_data=val, epochs=5, verbose=2).history
plain_seconds = time.perf_counter() - start

# %% [markdown]
# Is the accuracy in validation better than in training? That is no mistake: the training photos come tilted and with
# a fifth of their features missing, the validation photos as they are.

# %% [markdown]
# ## Step 4: fine-tuning the last blocks (phase 2)
#
# The early blocks see edges and colours, which serve alpacas as well as anything. The last ones see what ImageNet
# asked for: dog breeds, teapots, fire engines. Those are worth retraining, at a **tenth of the learning rate**, so
# that they shift their meaning instead of losing it. We cut at the end of a block and by its name; a layer *number*
# ("unfreeze from layer 120") is likely to end up inside one.
#
# How much is that? Only the last four of sixteen blocks and what follows them, but most of the weights:

# %%
CUT = "block_12_add"  # the last layer that stays frozen
first = [layer.name for layer in base.layers].index(CUT) + 1

blocks = {}  # name of the block: [weights that stay frozen, weights that will learn]
for number, layer in enumerate(base.layers):
    name = layer.name.split("_")[1] if layer.name.startswith("block_") else "top" if number > first else "stem"
    blocks.setdefault(name, [0, 0])[number >= first] += layer.count_params()
frozen, learning = np.transpose(list(blocks.values()))
everything = frozen.sum() + learning.sum()

figure, axis = plt.subplots(figsize=(9, 2.2))
axis.bar(list(blocks), frozen / 1000, color=GREY, label=f"stay frozen: {frozen.sum() / everything:.0%}")
axis.bar(list(blocks), learning / 1000, color=YES, label=f"will learn: {learning.sum() / everything:.0%}")
axis.set_title("thousand weights per block of MobileNetV2", loc="left")
axis.legend(loc="upper left")
plt.show()

# %% [markdown]
# ### A trap on the way: BatchNormalization
#
# Every convolution in MobileNetV2 is followed by a BatchNormalization, which has two modes. In *inference* it scales
# by a mean and a variance that were averaged over all the photos of its pre-training. In *training* it scales by
# those of the current batch, here 32 photos, and lets the averages drift towards them. For a small data set we want
# the first one always: 32 photos give a noisy scale, and a network that trains by one scale and serves by another is
# not the one you meant to train.
#
# That is what `base(x, training=False)` is for, and many notebooks rely on it. **In Keras 3 it does not hold.** `fit`
# calls the model with `training=True`, and a functional model hands that down to every layer inside it, over what you
# wrote. As long as the base is frozen nobody notices. It shows when you unfreeze. Don't take our word for it, count:
# each BatchNormalization keeps two vectors of averages, so which of them move in three training steps? (A small
# untrained network shows it in seconds.)


# %%
def which_move(unfreeze, keep_still):
    """Train three steps; for each BatchNormalization: did its mean move, did its variance?"""
    small = keras.applications.MobileNetV2(input_shape=(SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None)
    norms = [layer for layer in small.layers if isinstance(layer, layers.BatchNormalization)]
    for number, layer in enumerate(small.layers):
        layer.trainable = unfreeze and number >= first
    for norm in norms if keep_still else []:
        norm.trainable = False

    inputs = keras.Input((SIZE, SIZE, 3))
    x = small(inputs, training=False)  # the line that is meant to protect them
    trial = keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(x)))
    trial.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    before = [(np.array(norm.moving_mean), np.array(norm.moving_variance)) for norm in norms]
    trial.fit(images / 127.5 - 1, answers, epochs=3, verbose=0)
    after = [(np.array(norm.moving_mean), np.array(norm.moving_variance)) for norm in norms]
    return np.array([[np.any(a != b) for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)])


trials = {
    "base frozen (phase 1)": which_move(unfreeze=False, keep_still=False),
    "last blocks unfrozen, training=False": which_move(unfreeze=True, keep_still=False),
    "... and each BatchNormalization frozen": which_move(unfreeze=True, keep_still=True),
}
moved = {name: int(trial.sum()) for name, trial in trials.items()}

figure, axis = plt.subplots(figsize=(9, 1.3))
strips = np.array([trial.ravel() for trial in trials.values()])
axis.pcolormesh(strips, cmap=ListedColormap(["#dddddd", WRONG]), edgecolor="white", linewidth=0.6)
axis.set_yticks(np.arange(3) + 0.5, [f"{name}: {count} moved" for name, count in moved.items()])
axis.set_xticks([])
axis.set_xlabel(f"the {strips.shape[1]} vectors of averages, from the first block to the last; red ones moved")
axis.invert_yaxis()
axis.spines[:].set_visible(False)
axis.tick_params(length=0)
plt.show()

# %% [markdown]
# So the cure is the third row: besides choosing the blocks, set `trainable = False` on every BatchNormalization. In
# Keras, and only for this kind of layer, that also means: use the stored averages, always.
#
# ### Phase 2

# %%
base.trainable = True
for number, layer in enumerate(base.layers):
    layer.trainable = number >= first and not isinstance(layer, layers.BatchNormalization)

compile_model(RATE / 10)  # compile again, or the change is not seen
start = time.perf_counter()
phase_2 = model.fit(train, validation_data=val, initial_epoch=5, epochs=10, verbose=2).history
plain_seconds += time.perf_counter() - start

# %% [markdown]
# Both phases on one axis. What to look for: whether the solid line still rises after the switch, and whether the two
# lines part, the dashed one going on alone. That would be the point where the network begins to learn the photos by
# heart. And do not read much into the jumps between two epochs: with some fifty photos to validate on, each photo is
# worth two points.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
epochs = range(1, 11)
for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
    axis.plot(epochs, phase_1[name] + phase_2[name], "--", color=GREY, label="training")
    axis.plot(epochs, phase_1[f"val_{name}"] + phase_2[f"val_{name}"], "o-", color=YES, ms=4, label="validation")
    axis.axvspan(5.5, 10.5, color="#f6ede6", zorder=0)
    axis.axvline(5.5, color="black", lw=0.8, ls=":")
    for middle, text in ((3, "phase 1: head"), (8, "phase 2: last blocks")):
        axis.text(middle, 1.02, text, ha="center", color="#555555", transform=axis.get_xaxis_transform())
    axis.set(xlim=(0.5, 10.5), xticks=epochs, xlabel="epoch", ylabel=name)
axes[0].axhline(guess, color=NO, lw=1, label="always the larger class")
axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
axes[1].set_ylim(bottom=0)
axes[0].legend(fontsize=8.5)
figure.tight_layout()
plt.show()

# %% [markdown]
# ### What does it look at?
#
# Our network makes this question easy, and its answer exact. Pooling is a mean over 25 places and the head a weighted
# sum, and it does not matter which of the two comes first. So apply the head to *each place*, before pooling: that is
# a map of how much each place speaks for an alpaca, and the mean of the map **is** the network's output. No
# gradients, no approximation (and dropout does nothing outside training).

# %%
photos = np.concatenate([np.asarray(images) for images, _ in val])
truth = np.concatenate([np.asarray(answers)[:, 0] for _, answers in val]).astype(int)
logits = model.predict(photos, verbose=0)[:, 0]
scores = 1 / (1 + np.exp(-logits))

features = base.predict(photos / 127.5 - 1, verbose=0)  # photos x 5 x 5 x 1280
weights, bias = model.get_layer("head").get_weights()  # 1280 x 1, and 1
heat = (features @ weights + bias)[..., 0]  # photos x 5 x 5

gap = np.abs(heat.mean(axis=(1, 2)) - logits).max()
print(f"largest difference between the mean of a map and the network's output: {gap:.1e}")


# %%
def paint(photo, values, scale):
    """Lay a map over a pale grey photo: orange above 0, blue below."""
    grey = 0.45 + 0.55 * photo.mean(axis=-1, keepdims=True).repeat(3, axis=-1) / 255
    fine = np.array(Image.fromarray(values.astype("float32")).resize((SIZE, SIZE), Image.Resampling.BICUBIC))[..., None]
    colour = np.where(fine > 0, to_rgb(YES), to_rgb(NO))
    strength = 0.8 * np.clip(np.abs(fine) / scale, 0, 1) ** 0.7
    return 255 * ((1 - strength) * grey + strength * colour)


margin = np.where(truth == 1, logits, -logits)  # below 0: a mistake
order = margin.argsort()
alpacas, others = (order[truth[order] == answer] for answer in (1, 0))
# The worst two of all; then an ordinary and the surest one, of the alpacas and of the others.
six = np.array([*order[:2], alpacas[len(alpacas) // 2], alpacas[-1], others[len(others) // 2], others[-1]])
scale = np.abs(heat[six]).max()

titles = [f"{scores[number]:.0%} alpaca" for number in six]
colours = ["black" if margin[number] > 0 else WRONG for number in six]
maps = [paint(photos[number], heat[number], scale) for number in six]
show([*photos[six], *maps], [*titles, *[""] * 6], columns=6, colours=[*colours, *["black"] * 6])

# %% [markdown]
# Orange places speak for an alpaca, blue ones against it. The two photos on the left are those it did worst on, of
# all that we held out: a mistake teaches more than the hundredth right answer. Where orange lies beside the animal,
# the network has learned something about meadows.
#
# ## What the number is worth
#
# Suppose 47 of 49 photos come out right: 96%. How sure is that? Had we held out 49 *other* photos, it might have been
# 45 or 49. The interval of Edwin B. Wilson (1927) says which true accuracies go well with what we saw:


# %%
def wilson(right, n, z=1.96):
    share, shrink = right / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


right = int((margin > 0).sum())
rows = [(f"{round(0.96 * n)} of {n}", round(0.96 * n), n, GREY) for n in (25, 49, 100, 400, 1600)]
rows.append((f"ours: {right} of {len(truth)}", right, len(truth), YES))

figure, axis = plt.subplots(figsize=(7, 2.2))
for row, (_, hits, n, colour) in enumerate(rows):
    low, high = wilson(hits, n)
    axis.plot([low, high], [row, row], color=colour, lw=6, alpha=0.45, solid_capstyle="butt")
    axis.plot(hits / n, row, "o", color=colour)
    axis.text(1.01, row, f"{low:.0%} to {high:.0%}", va="center", color=colour)
axis.set_yticks(range(len(rows)), [text for text, *_ in rows])
axis.invert_yaxis()
axis.set_xlim(right=1)
axis.xaxis.set_major_locator(plt.MultipleLocator(0.05))
axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
axis.set_title("right answers, and the 95% interval of the accuracy", loc="left")
axis.grid(axis="x", color="#e6e6e6")
axis.set_axisbelow(True)
plt.show()

# %% [markdown]
# 49 photos cannot tell a network of 88% from one of 98%. To tell 96% from 94% takes well over a thousand. So write
# the interval beside the number, and be slow to believe that a change "brought two percent".
#
# And there is a second catch. Above, everything was fixed beforehand: five epochs, then five more, at rates tried out
# on other photos. As soon as you *choose* by the validation photos (the best epoch, the best learning rate), their
# accuracy is the best of many and too good to be true. Then you need a third part that nobody has looked at: a test
# set.
#
# ## The same with pronk
#
# [pronk](../README.md) is these four steps, made for daily use. Three lines train, load and predict. To make it a
# fair race, it gets the same weights and image size, and as its test set the photos that we held out. (Drawn photos
# take the settings of `pronk demo`.) With photos of your own, leave the settings out.

# %%
WORK.mkdir(exist_ok=True)
with (WORK / "held-out.csv").open("w", newline="", encoding="utf-8") as file:
    rows = [(path.relative_to(PHOTOS).as_posix(), path.parent.name, "test") for path in held_out]
    csv.writer(file).writerows([("path", "label", "part"), *rows])
settings = pronk.Settings(weights=WEIGHTS) if real else pronk.Settings(weights="offline")
settings = settings.replace(image_size=SIZE, split=str(WORK / "held-out.csv"), test=0, seed=SEED)
for former in ("run", "cache"):  # of the last time this notebook ran: pronk never overwrites a run
    shutil.rmtree(WORK / former, ignore_errors=True)

# %%
start = time.perf_counter()
result = pronk.train(PHOTOS, out=WORK / "run", cache=WORK / "cache", settings=settings)
pronk_seconds = time.perf_counter() - start

predictor = pronk.Predictor.load(result.folder)
predictions = predictor.predict(held_out)

# %%
shown = [predictions[number] for number in six]
show(
    photos[six],
    [f"{prediction.label}, {prediction.score:.0%}" for prediction in shown],
    columns=6,
    colours=["black" if p.label == CLASSES[t] else WRONG for p, t in zip(shown, truth[six], strict=True)],
)
metrics = result.metrics
print("chosen:", metrics.chosen["why"])
print("report:", (result.folder / "report.html").as_posix())
print("kept:  ", metrics.comparison["kept"].replace("_", "-"), "network;", metrics.comparison["why"])
for finding in result.findings:
    print("found: ", finding.path, "-", finding.message)

# %% [markdown]
# Now side by side, on the same photos, none of which either of them learned from:

# %%
alpaca = np.array([p.probabilities[p.classes.index("alpaca")] for p in predictions])


def describe(name, scores, seconds):
    hits = int(((scores > 0.5) == truth).sum())
    low, high = wilson(hits, len(truth))
    loss = -np.log(np.where(truth == 1, scores, 1 - scores).clip(1e-7)).mean()
    return f"| {name} | {hits} of {len(truth)} | {low:.0%} to {high:.0%} | {loss:.2f} | {seconds:.0f} |"


Markdown(
    "\n".join(
        [
            "| | right | 95% interval | log-loss (lower is better) | seconds |",
            "|---|---|---|---|---|",
            describe("plain Keras, both phases", scores, plain_seconds),
            describe("pronk", alpaca, pronk_seconds),
        ]
    )
)

# %% [markdown]
# Keras's seconds are those of the two `fit` calls; pronk's are all it did, from looking at the files to the report.
# Neither counts the import of Keras, which came before. Where the intervals overlap, do not conclude from the
# accuracies that one is better; log-loss, which also counts *how sure* a network was, says more.
#
# Why it is quicker, and what you need not think of any more:
#
# - The frozen blocks give the same features for the same view each time. pronk computes them once and keeps them; we
#   computed them ten times.
# - A head on fixed features has one best solution. pronk solves for it; we walked towards it for five epochs.
# - What suits the photos is asked of them: whether the head reads the last block alone, as ours does, or several, which
#   helps most where photos are unlike ImageNet's; how long to fine-tune; and how much of that to keep. Where the frozen
#   network is nearly always right, phase 2 stays short.
# - Copies and near copies of a photo never end up on both sides of the split, and photos are turned the way the
#   camera was held, which `image_dataset_from_directory` does not do.
# - BatchNormalization stays still, fine-tuning is kept only where it lowers the validation loss, and every accuracy
#   comes with its interval. The report says all of it in words.
