"""Choose a runtime, and the errors without a suitable one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building import runtimes
from d2serve.building.runtimes import RuntimeChoice, choose_runtime, write_detectron2_config
from d2serve.detector.detectron2 import model as upstream
from d2serve.errors import ConfigError, RuntimeUnavailableError
from tests.goldens.cases import CONFIGS

SUPPORTED = CONFIGS / "mask_rcnn_r50.yaml"
LAZY = CONFIGS / "mask_rcnn_vitdet.yaml"


@pytest.fixture
def unsupported(tmp_path: Path) -> Path:
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {SUPPORTED}\nMODEL: {{PROPOSAL_GENERATOR: {{NAME: RRPN}}}}\n")
    return config


@pytest.fixture
def lazy_unsupported(tmp_path: Path) -> Path:
    config = tmp_path / "lazy.yaml"
    text = LAZY.read_text().replace("modeling.ViT", "modeling.SwinTransformer")
    config.write_text(text)
    return config


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "package_version", lambda: "0.6")


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeUnavailableError("no such package; pip install it")

    monkeypatch.setattr(runtimes, "package_version", missing)


@pytest.mark.usefixtures("not_installed")
def test_supported_configs_need_no_package() -> None:
    for config in (SUPPORTED, LAZY):
        assert choose_runtime("auto", config) == RuntimeChoice("native", "the config is supported")
    assert choose_runtime("native", SUPPORTED) == RuntimeChoice("native", "requested")


@pytest.mark.usefixtures("installed")
def test_our_own_network_is_preferred_unless_the_package_is_requested() -> None:
    assert choose_runtime("auto", SUPPORTED).runtime == "native"
    assert choose_runtime("detectron2", SUPPORTED) == RuntimeChoice(
        "detectron2", "requested, version 0.6"
    )


@pytest.mark.usefixtures("installed")
def test_unsupported_configs_run_on_the_package(unsupported: Path) -> None:
    choice = choose_runtime("auto", unsupported)
    assert choice.runtime == "detectron2"
    assert choice.reason.startswith(
        "version 0.6; not possible with native: this config is not supported: "
        "MODEL.PROPOSAL_GENERATOR.NAME: 'RRPN' (supported: only 'RPN'"
    )


@pytest.mark.usefixtures("installed")
def test_more_than_one_reason_is_counted(unsupported: Path) -> None:
    heads = "ROI_HEADS: {NAME: RROIHeads}, ROI_BOX_HEAD: {POOLER_TYPE: ROIAlignRotated}"
    unsupported.write_text(unsupported.read_text().rstrip("}\n") + f"}}, {heads}}}\n")
    reason = choose_runtime("auto", unsupported).reason
    assert "not supported: " in reason
    assert reason.endswith(" and 2 more")
    assert "\n" not in reason


@pytest.mark.usefixtures("not_installed")
def test_without_a_runtime_all_values_and_the_fix_are_listed(unsupported: Path) -> None:
    heads = "ROI_HEADS: {NAME: RROIHeads}"
    unsupported.write_text(unsupported.read_text().rstrip("}\n") + f"}}, {heads}}}\n")
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", unsupported)
    message = str(raised.value)
    assert "MODEL.PROPOSAL_GENERATOR.NAME: 'RRPN' (supported: only 'RPN'" in message
    assert "MODEL.ROI_HEADS.NAME: 'RROIHeads'" in message
    assert message.endswith("no such package; pip install it")


WRONG = {
    "a value": "MODEL: {RPN: {CONV_DIMS: [-2]}}",
    "a typo": "MODEL: {MASK_OM: true}",
    "a key of one's own": "MY_KEY: 1",
    "another project": "MODEL: {MASK_FORMER: {NHEADS: 8}}",
    "no section": "MODEL: {ROI_HEADS: null}",
    "code": 'MODEL: {RPN: {NMS_THRESH: !!python/object/apply:eval ["len([1])"]}}',
}


def wrong_config(folder: Path, name: str) -> Path:
    config = folder / "config.yaml"
    config.write_text(f"_BASE_: {SUPPORTED}\n{WRONG[name]}\n")
    return config


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("name", WRONG)
def test_the_package_is_not_recommended_where_it_would_fail(tmp_path: Path, name: str) -> None:
    config = wrong_config(tmp_path, name)
    with pytest.raises(ConfigError) as native:
        choose_runtime("native", config)
    with pytest.raises(ConfigError) as auto:
        choose_runtime("auto", config)
    assert str(auto.value) == str(native.value)
    assert "install" not in str(auto.value)


@dataclass
class Trial:
    """A package that records the configs that it is given, and accepts them or not."""

    accepts: bool
    proposal_generator: object = "RPN"
    configs: list[dict[str, Any]] = field(default_factory=list)

    def build_model(self, folder: Path, device: object) -> tuple["Trial", None]:
        assert str(device) == "cpu"
        self.configs.append(yaml.safe_load((folder / "detectron2.yaml").read_text()))
        if not self.accepts:
            raise ConfigError("detectron2 does not accept this config")
        return self, None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [name for name in WRONG if name != "code"])
def test_an_installed_package_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may know more keys and values than this version of d2serve."""
    config, accepting, refusing = wrong_config(tmp_path, name), Trial(True), Trial(False)
    monkeypatch.setattr(upstream, "build_model", accepting.build_model)
    assert choose_runtime("auto", config).runtime == "detectron2"
    assert len(accepting.configs) == 1
    monkeypatch.setattr(upstream, "build_model", refusing.build_model)
    with pytest.raises(ConfigError) as native:
        choose_runtime("native", config)
    with pytest.raises(ConfigError) as auto:
        choose_runtime("auto", config)
    assert str(auto.value) == str(native.value)


@pytest.mark.usefixtures("installed")
def test_code_never_reaches_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(True)
    monkeypatch.setattr(upstream, "build_model", trial.build_model)
    with pytest.raises(ConfigError, match="NMS_THRESH: !!python/object/apply:eval"):
        choose_runtime("auto", wrong_config(tmp_path, "code"))
    assert trial.configs == []


@pytest.mark.usefixtures("installed")
def test_a_network_that_needs_proposals_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(True, proposal_generator=None)
    monkeypatch.setattr(upstream, "build_model", trial.build_model)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"_BASE_: {SUPPORTED}\nMODEL: {{PROPOSAL_GENERATOR: {{NAME: PrecomputedProposals}}}}\n"
    )
    with pytest.raises(ConfigError, match="PrecomputedProposals"):
        choose_runtime("auto", config)


@pytest.mark.usefixtures("installed")
def test_the_package_gets_the_config_without_ignored_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(True)
    monkeypatch.setattr(upstream, "build_model", trial.build_model)
    config = wrong_config(tmp_path, "a value")
    config.write_text(config.read_text() + "MY_KEY: 1\n")
    choose_runtime("auto", config, ["MY_*"])
    assert "MY_KEY" not in trial.configs[0]
    assert trial.configs[0]["MODEL"]["RPN"]["CONV_DIMS"] == [-2]


PANOPTIC_DEEPLAB = """
MODEL:
  META_ARCHITECTURE: PanopticDeepLab
  BACKBONE: {NAME: build_resnet_deeplab_backbone}
  RESNETS: {RES4_DILATION: 1, RES5_MULTI_GRID: [1, 2, 4], STEM_TYPE: deeplab}
  INS_EMBED_HEAD: {NAME: PanopticDeepLabInsEmbedHead}
  PANOPTIC_DEEPLAB: {STUFF_AREA: 4096}
INPUT:
  GAUSSIAN_SIGMA: 8
  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 16)]"]
"""


@pytest.mark.usefixtures("installed")
def test_panoptic_deeplab_runs_on_the_package(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(PANOPTIC_DEEPLAB)
    assert choose_runtime("auto", config).runtime == "detectron2"
    written, _ = write_detectron2_config(tmp_path, config)
    assert written["INPUT"]["GAUSSIAN_SIGMA"] == 8
    plain = yaml.safe_load((tmp_path / "detectron2.yaml").read_text())
    assert plain["INPUT"] == {"GAUSSIAN_SIGMA": 8}
    assert plain["MODEL"]["RESNETS"]["RES4_DILATION"] == 1


@pytest.mark.usefixtures("not_installed")
def test_panoptic_deeplab_needs_the_package(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(PANOPTIC_DEEPLAB)
    with pytest.raises(ConfigError, match=r"Only the detectron2 package could run it: .*install"):
        choose_runtime("auto", config)


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize(
    ("old", "new", "recommended"),
    [
        ("modeling.ViT", "modeling.SwinTransformer", True),
        ("num_classes: 5", "num_classes: three", False),
        ("num_classes: 5", "num_classes: [3]", False),
    ],
)
def test_lazy_values_of_a_wrong_type_do_not_recommend_the_package(
    tmp_path: Path, old: str, new: str, recommended: bool
) -> None:
    text = LAZY.read_text()
    assert old in text
    config = tmp_path / "config.yaml"
    config.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", config)
    assert ("Only the detectron2 package could run it" in str(raised.value)) is recommended


@pytest.mark.usefixtures("installed")
def test_a_requested_native_runtime_is_not_replaced(
    unsupported: Path, lazy_unsupported: Path
) -> None:
    for config in (unsupported, lazy_unsupported):
        with pytest.raises(ConfigError):
            choose_runtime("native", config)


@pytest.mark.usefixtures("not_installed")
def test_a_requested_package_must_be_installed() -> None:
    with pytest.raises(RuntimeUnavailableError, match="no such package"):
        choose_runtime("detectron2", SUPPORTED)


@pytest.mark.usefixtures("installed")
def test_other_lazy_configs_run_on_the_package(lazy_unsupported: Path) -> None:
    choice = choose_runtime("auto", lazy_unsupported)
    assert choice.runtime == "detectron2"
    assert "model.backbone.net._target_: 'detectron2.modeling.SwinTransformer'" in choice.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("requested", ["auto", "native", "detectron2"])
@pytest.mark.parametrize("name", ["no.yaml", "no.yml"])
def test_a_missing_config_is_an_error(tmp_path: Path, requested: str, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        choose_runtime(requested, tmp_path / name)
