"""``CARD.md`` and ``model.yaml`` from the figures: no number is typed by hand."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

_HERE = Path(__file__).resolve().parent
_TEMPLATE = """\
template:
  en: >-
    its weights are not trained; train them with tools/train/bone_age on images that you may use, and install what that
    writes
  zh_Hans: 其权重未经训练；请用 tools/train/bone_age 在您有权使用的影像上训练，再安装所得软件包
"""
_WHOSE = """\
Not of the shipped weights, which say about 120 months of every picture, but of the same graph once its read-out was
trained on phantoms (`--phantom`): they show that the path works, and nothing else.
"""
_UNTRAINED = """\
**Its weights are not trained: they are drawn from a seed, and what it says is worth nothing.** It shows how a package
that measures is made, and a box **refuses to activate it**, live, silent or as shadow. No data set of hands was at hand
whose licence lets a network made of it be given away. The SD in `model.yaml` ($sd months) stands for: not known.

其权重未经训练，由随机种子生成，其输出毫无意义；设备拒绝启用本软件包。"""
_OF_PHANTOMS = """ The simulated hands ripen in straight
lines and differ little: an error on them says nothing of an error on children."""
_ON_PHANTOMS = """\
on simulated hands alone (`tools/train/bone_age/phantom.py`): it shows that the path works, and what it says of a
patient is worth nothing. 仅用模拟影像训练，对患者影像的结果毫无意义。"""


def manifest_text(metrics: dict[str, Any]) -> str:
    """``model.yaml``: a template of untrained weights, a package that may run of trained ones."""
    return Template((_HERE / "model.template.yaml").read_text()).substitute(
        version=metrics["package"].split()[1],
        status="research" if metrics["trained_on"] == "images" else "demonstrator",
        template=_TEMPLATE if metrics["trained_on"] == "nothing" else "",
        sd=metrics["sd_months"],
    )


def card_text(metrics: dict[str, Any]) -> str:
    """``CARD.md``."""
    figures = metrics["figures"]
    return Template((_HERE / "card.template.md").read_text()).substitute(
        package=metrics["package"],
        status="research" if metrics["trained_on"] == "images" else "demonstrator",
        state=_state(metrics),
        images=metrics["data"]["images"],
        what="images" if metrics["trained_on"] == "images" else "phantoms",
        whose=_WHOSE if metrics["trained_on"] == "nothing" else "",
        held_out=figures["held_out"],
        mae=f"{figures['mae_months']:.1f}",
        rmse=f"{figures['rmse_months']:.1f}",
        bias=f"{figures['bias_months']:+.1f}",
        within=f"{figures['within_12_months']:.0%}",
        groups=_groups(figures),
        refused=f"{figures['refused']:.1%}",
        sd=f"{metrics['sd_months']:g}",
        caution="" if metrics["trained_on"] == "images" else _OF_PHANTOMS,
    )


def _state(m: dict[str, Any]) -> str:
    epochs = m["epochs"]
    how = f"All weights were trained for {epochs} epochs" if epochs else "Only the read-out was trained, in closed form"
    if m["trained_on"] == "nothing":
        return Template(_UNTRAINED).substitute(sd=f"{m['sd_months']:g}")
    if m["trained_on"] == "phantoms":
        return f"{how}, {_ON_PHANTOMS}"
    return (
        f"{how}, on the images that its maker gave (SHA-256 of table and images in `metrics.json`).\n"
        "Its maker must say here whose images they are, who read the ages, and for whom it holds."
    )


def _groups(figures: dict[str, Any]) -> str:
    rows = [f"| {name} | {held['images']} | {held['mae_months']:.1f} |" for name, held in figures["groups"].items()]
    return "\n".join(["| held out | pictures | mean absolute error, months |", "|---|---|---|", *rows])
