"""What a model runs on, and what is said where nothing can run it."""

from pathlib import Path

import pytest

from d2serve.building import runtimes
from d2serve.building.runtimes import Choice, choose_runtime
from d2serve.building.yaml_config import ConfigError
from d2serve.detector.detectron2.model import PackageError
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
        raise PackageError("no such package; pip install it")

    monkeypatch.setattr(runtimes, "package_version", missing)


@pytest.mark.usefixtures("not_installed")
def test_what_our_own_network_supports_needs_no_package() -> None:
    for config in (SUPPORTED, LAZY):
        assert choose_runtime("auto", config) == Choice("native", "the config is supported")
    assert choose_runtime("native", SUPPORTED) == Choice("native", "asked for")


@pytest.mark.usefixtures("installed")
def test_our_own_network_comes_first_and_the_package_only_where_asked_for() -> None:
    assert choose_runtime("auto", SUPPORTED).runtime == "native"
    assert choose_runtime("detectron2", SUPPORTED) == Choice("detectron2", "asked for, 0.6")


@pytest.mark.usefixtures("installed")
def test_what_our_own_network_does_not_support_runs_on_the_package(unsupported: Path) -> None:
    choice = choose_runtime("auto", unsupported)
    assert choice.runtime == "detectron2"
    assert choice.reason == (
        "0.6, as our own network says: this config is not supported: "
        "MODEL.PROPOSAL_GENERATOR.NAME: 'RRPN' (supported: only 'RPN')"
    )


@pytest.mark.usefixtures("installed")
def test_more_than_one_reason_is_counted(unsupported: Path) -> None:
    text = unsupported.read_text() + "INPUT: {FORMAT: YUV-BT.601}\nNO_SUCH_KEY: 1\n"
    unsupported.write_text(text)
    reason = choose_runtime("auto", unsupported).reason
    assert "not supported: " in reason
    assert reason.endswith(" and 2 more")
    assert "\n" not in reason


@pytest.mark.usefixtures("not_installed")
def test_where_nothing_can_run_it_all_keys_are_listed_and_how_to_get_on(unsupported: Path) -> None:
    unsupported.write_text(unsupported.read_text() + "NO_SUCH_KEY: 1\n")
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", unsupported)
    message = str(raised.value)
    assert "MODEL.PROPOSAL_GENERATOR.NAME: 'RRPN' (supported: only 'RPN')" in message
    assert "NO_SUCH_KEY" in message
    assert message.endswith("no such package; pip install it")


@pytest.mark.usefixtures("installed")
def test_a_misspelt_key_is_nothing_for_the_package(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {SUPPORTED}\nMODEL: {{MASK_OM: True}}\n")
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", config)
    assert str(raised.value) == (
        "this config is not supported: "
        "MODEL.MASK_OM: True (not a key of Detectron2's own config, but MODEL.MASK_ON is)"
    )


@pytest.mark.usefixtures("installed")
def test_native_is_never_given_up_in_silence(unsupported: Path, lazy_unsupported: Path) -> None:
    for config in (unsupported, lazy_unsupported):
        with pytest.raises(ConfigError):
            choose_runtime("native", config)


@pytest.mark.usefixtures("not_installed")
def test_a_package_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(PackageError, match="no such package"):
        choose_runtime("detectron2", SUPPORTED)


@pytest.mark.usefixtures("installed")
def test_other_lazy_configs_run_on_the_package(lazy_unsupported: Path) -> None:
    choice = choose_runtime("auto", lazy_unsupported)
    assert choice.runtime == "detectron2"
    assert "model.backbone.net._target_: 'detectron2.modeling.SwinTransformer'" in choice.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("wanted", ["auto", "native", "detectron2"])
@pytest.mark.parametrize("name", ["no.yaml", "no.yml"])
def test_a_config_that_is_not_there_is_no_reason_to_choose(
    tmp_path: Path, wanted: str, name: str
) -> None:
    with pytest.raises(ConfigError, match=name):
        choose_runtime(wanted, tmp_path / name)
