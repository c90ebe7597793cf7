"""What the system tells of the processor, and what is said where it tells nothing."""

from pruning_kit.machine import processor


def test_the_processor_is_read_from_the_system(monkeypatch, tmp_path):
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor: 0\nmodel name\t: Fast 9000\nmodel name\t: Fast 9000\n")
    monkeypatch.setattr(processor, "CPU_INFO", listing)
    assert processor.name() == "Fast 9000"
    monkeypatch.setattr(processor.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(processor.platform, "processor", lambda: "")
    listing.write_text("hart: 0\n")
    assert processor.name() == "riscv64"
    listing.unlink()
    assert processor.name() == "riscv64"


def test_what_the_processor_can_do_is_read_from_the_system(monkeypatch, tmp_path):
    listing = tmp_path / "cpuinfo"
    listing.write_text("flags\t\t: fpu amx_tile\nvmx flags\t: other\n\nflags\t\t: fpu amx_tile\n")
    monkeypatch.setattr(processor, "CPU_INFO", listing)
    assert processor.flags() == {"fpu", "amx_tile"}
    listing.unlink()
    assert processor.flags() == frozenset()
