"""What pages are looked at for, and names that try to break out of them."""

import re

NAMES = (
    "script><intruder>",
    "style><intruder>",
    "<img src=x onerror=alert(1)>",
    '" autofocus onfocus=alert(1) tabindex=1 x="',
    "' autofocus onfocus=alert(1) tabindex=1 x='",
    "--><intruder>]]><intruder>",
    "two\nlines and\ta tab",
    "photo\u202egnp.exe",
    "in\u200bvisible\u2028",
    "caf\udce9",
    "&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{0}$",
    "javascript:alert(1)",
    "فيل фото 写真 🦙",
    "long" * 55,
    "many words " * 20 + "end",
)
UNWRITABLE = ("nul\x00", "half\ud83d", "escape\x1b[31m", "</script></style></title><intruder>", "../../<intruder>")
HOSTILE = (*NAMES, *UNWRITABLE)
INTRUDERS = """
const found = [];
for (const element of document.querySelectorAll("*")) {
    const attributes = [...element.attributes];
    if (/^(intruder|iframe|object|embed|base|form|meta)$/.test(element.localName) && element.closest("body")
        || attributes.some(one => /^on|^autofocus$|^srcdoc$/.test(one.name))
        || attributes.some(one => /^(src|href|action|xlink:href)$/.test(one.name) && !/^(data:image|#)/.test(one.value))
        || (element.localName === "script" && element.text.includes("alert(1)")))
        found.push(element.outerHTML.slice(0, 200));
}
return found;
"""
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def write_if_possible(path, data):
    """Write a file, unless this file system does not allow its name; tell whether it did."""
    try:
        path.write_bytes(data)
    except (OSError, ValueError):
        return False
    return True
