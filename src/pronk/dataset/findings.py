"""A code -> how much a fault matters, and why: the one table of everything that can be wrong with a data set."""

import dataclasses
from collections.abc import Iterable, Mapping

from pronk.errors import ImageError

SEVERITIES = ("error", "warning", "info")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data.

    Attributes:
        path: relative to the data folder, with "/"; empty where the whole folder is meant.
        code: a key of `CATALOGUE`; for files that cannot be used a value of `pronk.errors.Reason`.
        severity: error (left out), warning (kept, but look at it) or info.
        message: the fault in words.
        hint: the thing to do.
        related: paths of other files concerned.
    """

    path: str
    code: str
    severity: str
    message: str
    hint: str = ""
    related: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fault:
    """One kind of fault: its name for programs, and for people in the plural, and why it matters.

    A file with a movable one may be moved aside by `pronk check --fix`.
    """

    code: str
    severity: str
    title: str
    why: str
    movable: bool = False


# In the order in which people want to know of them.
_FAULTS = (
    Fault("few_classes", "error", "Fewer than two classes", "With less than two classes there is nothing to tell."),
    Fault(
        "unclear_parts",
        "error",
        "Folders that could be classes or parts",
        "A model that learns to tell training photos from test photos is of no use.",
    ),
    Fault("bad_label", "error", "Names of classes that nobody can read", "What the model answers has to be shown."),
    Fault("class_case", "error", "Classes that differ only in case", "On Windows and macOS they are one folder."),
    Fault(
        "reserved_class",
        "error",
        "Classes with a name that pronk uses itself",
        "A prediction with this name could mean the class, or that the photo fits none.",
    ),
    Fault("nothing_usable", "error", "No usable photo", "There is nothing to learn from."),
    Fault(
        "empty_part",
        "error",
        "Classes without photos to learn from, or to choose by",
        "Training refuses them: it could not know such a class, or not tell how well it knows it.",
    ),
    Fault(
        "leak",
        "error",
        "Look-alikes of a photo that is set aside for judging",
        "A model that has learned from a photo knows its copy by heart: the test would come out too good.",
        movable=True,
    ),
    Fault("zero_byte", "error", "Empty files", "There is no picture in it: a copy or a download broke off.", True),
    Fault("truncated", "error", "Images that end too early", "The lower part is missing, or filled with grey.", True),
    Fault(
        "not_an_image",
        "error",
        "Not images, whatever their names say",
        "Often it is the error page of a web site, saved under the name of the photo.",
        movable=True,
    ),
    Fault("decode_error", "error", "Images with damaged content", "Part of the picture cannot be restored.", True),
    Fault(
        "unsupported_format",
        "error",
        "Image formats that cannot be read",
        "Nothing is learned from it. Phones take HEIC unless told otherwise, so a whole class may be missing.",
        movable=True,
    ),
    Fault("too_many_pixels", "error", "Images with too many pixels", "It could take all memory to open it.", True),
    Fault("too_large", "error", "Files that are too large", "It could take all memory to open it.", True),
    Fault("unreadable", "error", "Files that may not be read", "Nothing is learned from it.", True),
    Fault("not_regular_file", "error", "Neither files nor folders that can be listed", "Nothing is learned from it."),
    Fault("vanished", "error", "Files that disappeared, or never were there", "Nobody can look at what is not there."),
    Fault("changed", "error", "Files that changed meanwhile", "What was measured would not be what was learned."),
    Fault(
        "label_conflict",
        "warning",
        "The same picture in two classes",
        "The labels contradict each other: whatever the model answers, one of them calls it wrong.",
    ),
    Fault(
        "one_scene",
        "warning",
        "Classes whose photos are all of one scene",
        "The test then tells how well the model does in this very scene, and nothing of any other place.",
    ),
    Fault(
        "shortcut",
        "warning",
        "Classes that can be told without looking at the subject",
        "A model takes the easiest way to tell classes. It may fail on photos where that way is closed.",
    ),
    Fault(
        "made_copies",
        "warning",
        "Copies that a program made from photos",
        "A copy in another part than its photo makes the test come out too good.",
    ),
    Fault(
        "exact_duplicate",
        "warning",
        "The same file twice in one class",
        "It counts twice in training and makes the class look larger than it is.",
        movable=True,
    ),
    Fault("blank", "warning", "Pictures without content", "A uniform picture of one class teaches nothing.", True),
    Fault("blurred", "warning", "Blurred pictures", "What tells the classes apart may not be visible in it."),
    Fault("tiny", "warning", "Very small pictures", "Enlarged for the network it is a blur of few pixels."),
    Fault("single_photo", "warning", "Classes with a single photo", "It can be learned from or judged by, not both."),
    Fault("too_few", "warning", "Classes with very few photos", "Learning, choosing and judging each need some."),
    Fault("thin_class", "warning", "Classes without photos to be judged by", "Nobody knows how well they are told."),
    Fault("stray_folder", "warning", "Photos beside the parts", "Nothing is learned from them."),
    Fault(
        "drawn",
        "warning",
        "Pictures that look drawn among the photos",
        "Outlines of each photo are learned as further photos, which a user of the model never has.",
    ),
    Fault("empty_class", "warning", "Class folders without photos", "It is not a class of the model."),
    Fault(
        "severe_imbalance",
        "warning",
        "Severe imbalance",
        "Always answering the largest class would be right most of the time, so accuracy alone says little.",
    ),
    Fault(
        "case_collision",
        "warning",
        "File names that are one name elsewhere",
        "Copied to Windows or macOS, one of them replaces the other without a word.",
    ),
    Fault(
        "near_duplicate",
        "info",
        "Almost the same picture twice in one class",
        "Copies and frames of a burst add little. Both stay in the same part, so no test profits from them.",
    ),
    Fault(
        "imbalance",
        "info",
        "Imbalance",
        "Above 3:1 training weighs the classes so that small ones count; look at each class's own numbers.",
    ),
    Fault("wrong_extension", "info", "Names that do not fit the content", "Other programs may refuse to open it."),
    Fault(
        "rotated",
        "info",
        "Photos that are stored on their side",
        "pronk turns them upright; many other programs do not, and see them sideways.",
    ),
    Fault("deep_grey", "info", "Grey of more than 8 bits", "What is white in it was told by its values."),
    Fault("colour_profile", "info", "Colour profiles that cannot be used", "Its colours may be slightly off."),
    Fault("animated", "info", "Animations", "Only the first frame is used, which may show something else."),
    Fault("odd_name", "info", "Names that trip up other programs", "pronk takes them; Windows or shells may not."),
    Fault("parts", "info", "Folders taken for parts", "Of their photos none moves to another part."),
    Fault("columns", "info", "Columns of the list", "What a list means is told by the names of its columns."),
    Fault("sidecar", "info", "Files beside the photos", "They are no photos, and no fault."),
    Fault("hidden", "info", "Hidden files and folders", "What is hidden is not part of the data set."),
    Fault("outside_classes", "info", "Files outside the class folders", "Without a class nothing is learned of it."),
    Fault(
        "numeric_classes",
        "info",
        "Numbers as class names",
        "Programs that sort by letter put 10 before 2, and then take one class for another.",
    ),
)
CATALOGUE: Mapping[str, Fault] = {fault.code: fault for fault in _FAULTS}
_RANK = {fault.code: rank for rank, fault in enumerate(_FAULTS)}


def find(path: str, code: str, message: str, hint: str = "", related: tuple[str, ...] = ()) -> Finding:
    """Make a finding of the severity that its code has."""
    return Finding(path, code, CATALOGUE[code].severity, message, hint, related)


def describe_fault(code: str, severity: str = "info") -> Fault:
    """Return what is known of a code; of one that is none, at least a title."""
    return CATALOGUE.get(code) or Fault(code, severity, code.replace("_", " ").capitalize(), "")


def group_findings(findings: Iterable[Finding]) -> list[tuple[Fault, list[Finding]]]:
    """Group findings by code, what matters most first."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.code, []).append(finding)
    described = [(describe_fault(code, found[0].severity), found) for code, found in groups.items()]
    return sorted(described, key=lambda group: (SEVERITIES.index(group[0].severity), _RANK.get(group[0].code, 99)))


def left_out(path: str, error: ImageError) -> Finding:
    """Turn the reason why a file cannot be used into a finding."""
    return find(path, error.reason.value, str(error), error.hint)
