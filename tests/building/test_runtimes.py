"""Choose a runtime, and the errors without a suitable one."""

from pathlib import Path

import pytest

from d2serve.building import runtimes
from d2serve.building.runtimes import RuntimeChoice, choose_runtime
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
    assert choice.reason == (
        "version 0.6; not possible with native: this config is not supported: "
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
def test_without_a_runtime_all_keys_and_the_fix_are_listed(unsupported: Path) -> None:
    unsupported.write_text(unsupported.read_text() + "NO_SUCH_KEY: 1\n")
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", unsupported)
    message = str(raised.value)
    assert "MODEL.PROPOSAL_GENERATOR.NAME: 'RRPN' (supported: only 'RPN')" in message
    assert "NO_SUCH_KEY" in message
    assert message.endswith("no such package; pip install it")


@pytest.mark.usefixtures("installed")
def test_a_misspelled_key_is_not_left_to_the_package(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {SUPPORTED}\nMODEL: {{MASK_OM: True}}\n")
    with pytest.raises(ConfigError) as raised:
        choose_runtime("auto", config)
    assert str(raised.value) == (
        "this config is not supported: "
        "MODEL.MASK_OM: True (not a key of Detectron2's own config, did you mean MODEL.MASK_ON?)"
    )


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
