"""Writes ../gbk.txt, the two-byte part of GBK, from Python's codec. Run it in this folder."""

with open("../gbk.txt", "w", encoding="utf-8", newline="\n") as f:
    for first in range(0x81, 0xFF):
        line = ""
        for second in range(0x40, 0xFF):
            if second != 0x7F:
                char = bytes([first, second]).decode("gbk", errors="replace")
                line += char if len(char) == 1 else "\ufffd"
        f.write(line + "\n")
