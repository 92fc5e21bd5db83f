"""What a PDF says, read without a library: bookmarks, words and links of its pages."""

import re
import unicodedata
import zlib


class Printed:
    """A PDF as Chromium writes it: one object after another, streams deflated."""

    def __init__(self, data: bytes) -> None:
        found = re.findall(rb"\n(\d+) 0 obj\n(.*?)\nendobj", data, re.DOTALL)
        self.objects = dict(found)
        self.pages = [one for one in self.objects.values() if b"/Type /Page\n" in one]
        ordered = (n for n, one in found if b"/Type /Page\n" in one)
        self.number = {name: page for page, name in enumerate(ordered, 1)}
        self.destinations = {
            name: self.number[page]
            for name, page in re.findall(rb"/(\S+) \[(\d+) 0 R /XYZ", data)
        }

    def bookmarks(self, below: bytes | None = None) -> list[tuple[str, int, list]]:
        """Return title, page and bookmarks below of each bookmark, in order."""
        if below is None:
            roots = self.objects.values()
            [below] = [one for one in roots if b"/Type /Outlines" in one]
        marks, next_one = [], re.search(rb"/First (\d+) 0 R", below)
        while next_one:
            one = self.objects[next_one[1]]
            text = re.search(rb"/Title (?:\((.*?)\)\n|<(\w+)>)", one, re.DOTALL)
            page = re.search(rb"/Dest \[(\d+) 0 R", one)
            if text[2]:
                title = bytes.fromhex(text[2].decode()).decode("utf-16")
            else:
                title = re.sub(r"\\(.)", r"\1", text[1].decode("latin-1"))
            marks.append((title, self.number[page[1]], self.bookmarks(one)))
            next_one = re.search(rb"/Next (\d+) 0 R", one)
        return marks

    def words(self, page: int) -> str:
        """Return the letters of a page in the order in which they are drawn.

        The first is the number of the page.
        """
        about = self.pages[page - 1]
        fonts = dict(re.findall(rb"/(F\d+) (\d+) 0 R", about))
        letters = {name: self._letters(font) for name, font in fonts.items()}
        [content] = re.findall(rb"/Contents (\d+) 0 R", about)
        said, font = "", {}
        drawn = rb"/(F\d+) \S+ Tf|<([0-9A-F]+)> Tj"
        for name, codes in re.findall(drawn, self._stream(content)):
            font = letters[name] if name else font
            said += "".join(
                font.get(codes[i : i + 4], "") for i in range(0, len(codes), 4)
            )
        return unicodedata.normalize("NFKC", said)

    def links(self, page: int) -> list[int]:
        """Return the pages to which the links of a page lead, as they stand there."""
        [named] = re.findall(rb"/Annots \[([^\]]*)\]", self.pages[page - 1])
        notes = (self.objects[n] for n in re.findall(rb"(\d+) 0 R", named))
        found = (re.search(rb"/Dest /(\S+)", note) for note in notes)
        return [self.destinations[one[1]] for one in found if one]

    def _stream(self, name: bytes) -> bytes:
        head, body = self.objects[name].split(b"stream\n", 1)
        packed = b"/FlateDecode" in head  # a short one is not
        return zlib.decompressobj().decompress(body) if packed else body

    def _letters(self, font: bytes) -> dict[bytes, str]:
        """Return the text of each code of a font."""
        [table] = re.findall(rb"/ToUnicode (\d+) 0 R", self.objects[font])
        known: dict[bytes, str] = {}
        for block in re.findall(rb"beginbf\w+\n(.*?)endbf", self._stream(table), re.S):
            for line in block.splitlines():
                first, *rest = re.findall(rb"<([0-9A-F]+)>", line)
                last, text = rest if len(rest) == 2 else (first, *rest)
                for i in range(int(last, 16) - int(first, 16) + 1):
                    meant = chr(int(text[-4:], 16) + i)
                    known[b"%04X" % (int(first, 16) + i)] = meant
        return known
