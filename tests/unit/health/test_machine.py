"""Heat, throttling and wear as Linux, a Jetson and NVIDIA's driver tell them; what they do not tell is None."""

from __future__ import annotations

import ctypes

import pytest

from appliance.health import machine, sampling
from appliance.health.machine import Tegra, ask_tegrastats, parse_tegrastats
from appliance.health.nvml import Gpu, read_gpu

pytestmark = pytest.mark.req("R-FLEET-36")

#: Lines of the program on several boards and releases.
ORIN_NX = (
    "05-12-2026 00:30:15 RAM 3423/7620MB (lfb 78x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,6%@729,2%@729,1%@729]"
    " EMC_FREQ 15%@204 GR3D_FREQ 37%@[305] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@45.531C soc2@44.781C"
    " soc0@45.937C gpu@46.468C tj@47.5C soc1@46C VDD_IN 3311mW/3311mW VDD_CPU_GPU_CV 524mW/524mW"
)
AGX_ORIN = (
    "RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,off,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ"
    " 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C GPU@-256C tj@44.343C"
)
XAVIER_NX = (
    "RAM 3168/6851MB (lfb 2x4MB) CPU [23%@1397,17%@1192] EMC_FREQ 2%@204 GR3D_FREQ 99%@[1109] VIC_FREQ 115 APE 150"
    " AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C VDD_IN 2763mW/2846mW"
)
NANO = (
    "RAM 2893/3956MB (lfb 5x2MB) CPU [21%@102,15%@102] EMC_FREQ 0% GR3D_FREQ 4% PLL@18C CPU@20.5C PMIC@100C GPU@20C"
    " AO@26C thermal@20C POM_5V_IN 2056/2056"
)
TX1 = (
    "RAM 3468/3983MB (lfb 48x4MB) SWAP 873/8192MB (cached 295MB) cpu [17%,13%,29%,5%]@408 EMC 1%@408 APE 25 GR3D 3%@76"
)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (ORIN_NX, Tegra(37.0, 46.468, 47.5)),
        (AGX_ORIN, Tegra(0.0, None, 44.562)),  # -256 is a part that is off
        (XAVIER_NX, Tegra(99.0, 45.5, 46.5)),
        (NANO, Tegra(4.0, 20.0, 26.0)),  # the PMIC always says 100
        (TX1, Tegra(3.0, None, None)),
        ("", Tegra()),
        ("RAM 1/2MB GR3D_FREQ off tj@C", Tegra()),
    ],
)
def test_a_line_of_tegrastats_is_read_on_every_board(line, told):
    assert parse_tegrastats(line) == told


@pytest.fixture
def root(tmp_path):
    """``root({path: text})``: a machine whose files say so."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", "ascii")
        return tmp_path

    return make


def test_a_jetson_tells_its_gpu_its_heat_and_its_throttling_by_files(root):
    at = root(
        {
            "sys/devices/platform/17000000.gpu/load": "423",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "51250",
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": "49500",
            "sys/class/thermal/thermal_zone2/type": "PMIC-Die",
            "sys/class/thermal/thermal_zone2/temp": "100000",
            "sys/class/thermal/thermal_zone3/type": "cv0-thermal",
            "sys/class/thermal/thermal_zone3/temp": "-256000",
            "sys/class/thermal/cooling_device0/type": "pwm-fan",
            "sys/class/thermal/cooling_device0/cur_state": "3",
            "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device1/cur_state": "0",
            "sys/class/block/mmcblk0/device/life_time": "0x02 0x01",
        }
    )
    assert machine.jetson_gpu_percent(at) == 42.3
    assert machine.hottest_zone_c(at) == (51.25, 49.5)
    assert machine.is_throttled(at) is False, "a fan that turns slows nothing down"
    assert machine.disk_wear_percent(at) == 20.0
    root({"sys/class/thermal/cooling_device1/cur_state": "2"})
    assert machine.is_throttled(at) is True


def test_a_machine_that_tells_nothing_is_told_as_nothing(root):
    at = root({"sys/class/thermal/cooling_device0/type": "", "sys/class/block/sda/device/life_time": "0x00 0x0f x"})
    assert machine.jetson_gpu_percent(at) is None
    assert machine.hottest_zone_c(at) == (None, None)
    assert machine.is_throttled(at) is None
    assert machine.disk_wear_percent(at) is None


def test_tegrastats_is_asked_for_one_line_and_ended(tmp_path, monkeypatch):
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\necho '{ORIN_NX}'\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_tegrastats() == Tegra(37.0, 46.468, 47.5)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert ask_tegrastats() == Tegra()
    program.unlink()
    assert ask_tegrastats() == Tegra()


class FakeNvml:
    """The driver's library, as far as it is asked."""

    def __init__(self, *, lacks=(), reasons=0):
        self.lacks, self.reasons, self.ended = set(lacks), reasons, False

    def nvmlInit_v2(self):  # noqa: N802 - its own name
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):  # noqa: N802
        return index

    def nvmlShutdown(self):  # noqa: N802
        self.ended = True

    def _say(self, name, pointer, value):
        pointer._obj.value = value
        return 3 if name in self.lacks else 0

    def nvmlDeviceGetUtilizationRates(self, _, load):  # noqa: N802
        load._obj.gpu = 61
        return 3 if "load" in self.lacks else 0

    def nvmlDeviceGetMemoryInfo(self, _, memory):  # noqa: N802
        memory._obj.total, memory._obj.used = 1000, 250
        return 3 if "memory" in self.lacks else 0

    def nvmlDeviceGetTemperature(self, _, sensor, celsius):  # noqa: N802
        assert sensor == 0
        return self._say("heat", celsius, 83)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _, reasons):  # noqa: N802
        return self._say("reasons", reasons, self.reasons)


@pytest.mark.parametrize(
    ("reasons", "held_back"),
    [(0, False), (0x1, False), (0x2, False), (0x4, False), (0x8, True), (0x20, True), (0x40, True), (0x80 | 0x1, True)],
)
def test_a_gpu_is_held_back_by_heat_and_power_brake_and_not_by_idling_or_its_own_limit(monkeypatch, reasons, held_back):
    nvml = FakeNvml(reasons=reasons)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: nvml)
    assert read_gpu() == Gpu(61.0, 25.0, 83.0, held_back)
    assert nvml.ended


def test_a_driver_that_does_not_know_a_question_answers_the_others(monkeypatch):
    nvml = FakeNvml(lacks={"load", "memory", "heat", "reasons"})
    monkeypatch.setattr(ctypes, "CDLL", lambda _: nvml)
    assert read_gpu() == Gpu()
    assert read_gpu("no such library") == Gpu()


def test_the_sample_of_a_minute_has_what_card_or_jetson_says(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "read_gpu", lambda: Gpu(61.0, 25.0, 83.0, is_throttled=True))
    monkeypatch.setattr(sampling, "is_throttled", lambda: False)
    sample = sampling.read_machine(tmp_path)
    assert (sample.gpu_percent, sample.gpu_temperature_c, sample.throttled) == (61.0, 83.0, 1.0)
    monkeypatch.setattr(sampling, "read_gpu", Gpu)
    monkeypatch.setattr(sampling, "hottest_zone_c", lambda: (50.0, 48.0))
    monkeypatch.setattr(sampling, "ask_tegrastats", lambda: Tegra(12.0, 47.0, 50.0))
    sample = sampling.read_machine(tmp_path)
    assert (sample.gpu_percent, sample.gpu_temperature_c, sample.throttled) == (12.0, 47.0, 0.0)
    monkeypatch.setattr(sampling, "jetson_gpu_percent", lambda: 3.0)
    assert sampling.read_machine(tmp_path).gpu_percent == 3.0
