"""The quick digest of a base's files."""

from lorakit.runs.inputs import BLOCK, quick_digest


def test_an_exchange_of_two_parts_changes_it(tmp_path):
    """Such as two tokens of a vocabulary, or two labels, that stand a multiple of eight bytes
    apart."""
    file = tmp_path / "vocab.txt"
    file.write_bytes(b"." * 1600 + b"cold 12\nwarm 34\n")
    before = quick_digest(file)
    file.write_bytes(b"." * 1600 + b"warm 12\ncold 34\n")
    assert quick_digest(file) != before


def test_a_changed_bit_changes_it(tmp_path):
    file = tmp_path / "weights"
    data = bytearray(2 * BLOCK + 5)
    file.write_bytes(data)
    whole = quick_digest(file)
    for place in (0, 9, BLOCK, 2 * BLOCK + 4):
        data[place] ^= 0x80
        file.write_bytes(data)
        assert quick_digest(file) != whole
        data[place] ^= 0x80
