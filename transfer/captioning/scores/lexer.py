r"""The words of a piece of text, as the Stanford PTB tokenizer would cut it.

The reference is a longest-match scanner: at each place the rule that reaches farthest wins, its
trailing context counted, and among equals the earlier one. So is this: `_RULES` lists the rules,
and one regular expression tries them all at a place. They were written from what the reference
does with some three million short strings, not from its source. Rules see `shape(text)`, where one
letter stands for all letters beyond ASCII, one digit for all digits, and so on.

What comes out is lower case and free of the punctuation that MS-COCO's evaluation removes. A word
may hold no-break spaces (`22\xa03/4`), as there.
"""

import re
from collections.abc import Callable

from transfer.captioning.scores.characters import shape

# what MS-COCO's wrapper drops; brackets come as -lrb-, which its list (upper case) misses
_REMOVED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", ""])
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_ALONE = {
    **_BRACKETS,
    **{"\u2026": "...", "\u2013": "--", "\u2010": "-", "\xad": "-", "\u066b": ""},
    **{"\u20ac": "$", "\xa3": "#", "\xa2": "cents"},
    **{"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}
_QUOTES = {"\u2018": "`", "\u2019": "'", "\u203a": "'", "\u201c": "``", "\u201d": "''", '"': "''"}


def _choice(words: str) -> str:
    return "(?:" + "|".join(sorted(words.split(), key=len, reverse=True)) + ")"


# ---- classes
_A, _L, _D, _M = "A-Za-z", "A-Za-z\xe9", "0-9\u0660", "\u0301\xad"
_SPACE = "[ \t\xa0\u2000]"
_END = f"(?:{_SPACE}|$)"
_ENTITY = "&[aeiouAEIOU](?i:acute|grave|uml);"
_QUOTE = "'\u2019"
_APOS = f"(?:[{_QUOTE}]|&apos;)"
_ANY_APOS = "(?:['\u2019`\u2018]|&apos;)"
_WORD = f"(?:[{_L}{_M}]|{_ENTITY})(?:[{_L}{_M}{_D}]|{_ENTITY})*"
_PREFIX = f"(?:[dDoOlL]{_ANY_APOS}(?=[{_L}{_D}]{{2}}))?"
_NAME = f"{_PREFIX}[{_L}{_D}]+(?:_{_PREFIX}[{_L}{_D}]+)*"
_THING = f"{_NAME}(?:[-\u2010]{_NAME})*"
_ACRONYM = f"[{_A}](?:\\.[{_A}])+"
_PART = f"(?:{_ACRONYM}\\.|(?:[dDoOlL]{_ANY_APOS}(?=[{_A}{_D}]{{2}}))?[{_A}{_D}\xad]+)"
_COMPOUND = f"[{_A}{_D}][{_A}{_D}.,\xad]*(?:-{_PART})+"
_LETTERS = f"(?:[{_L}{_M}]|{_ENTITY})"
_GLUED = f"{_LETTERS}(?:[{_D}]|{_LETTERS})*(?:[.!?]{_LETTERS}(?:[{_D}]|{_LETTERS})*)+"
_POINT = "[:.,\xad\u066b]"
_NUMBER = f"[-+]?(?:[{_D}]+(?:{_POINT}[{_D}]+)*|(?:{_POINT}[{_D}]+)+)"
_SLASHED = f"[{_A}0-9]+(?:-[{_A}]+){{0,2}}"
_ENDING = f"{_APOS}(?:[sSdDmM]|(?i:ll|re|ve))"
_COMPANY = "[A-Z]+(?:(?:&(?i:amp;)?|\\+)[A-Z]+)+"
_EYE = "[-^x=~<>']"
_ATTRIBUTE_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = f"{_ATTRIBUTE_NAME}(?:[ \\t]*=[ \\t]*(?:'[^']*'|\"[^\"]*\"))?"
_TAG = (
    "<(?:!--(?:[^-]|-(?!-))*--|[!?][A-Za-z-][^>]*|"
    f"/{_ATTRIBUTE_NAME}[ \\t]*|{_ATTRIBUTE_NAME}(?:[ \\t]+{_ATTRIBUTE})*[ \\t]*/?[ \\t]*)>"
)
_URL_CHAR = '[^ \t"<>|(){}'
_LAST = _URL_CHAR + "!?.,-]"
_HOST = r'[^ \t"<>|.!?,(){}]'
_SITE = r"""(?:[^ \t!"$'()\-./0-:;<=>?@A-Z\[\]\\^_`{|},]+\.)+(?i:com|net|org|edu)"""
_WWW = f"(?i:www)\\.(?:{_HOST}+\\.)+[a-zA-Z]{{2,4}}"
_MAIL_CHAR = _URL_CHAR + "\xa0"
_MAIL = (
    f"(?:<|&lt;)?(?:mailto:)?[a-zA-Z0-9]{_MAIL_CHAR}]*@"
    f"(?:{_MAIL_CHAR}.]+\\.)*{_MAIL_CHAR}.]+(?:>|&gt;)?"
)
_EXTENSION = _choice(
    "bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php "
    "pl png ppt ps py sql tar txt wav x xml zip"
)

# ---- lists, each word tried on the reference
_MONTHS_STATES_FIRMS = (  # may end a sentence
    "al ala apr ariz assn assoc aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq "
    "est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo "
    "mon mont neb nev nov oct okla penn plc ppte ppty pptes pptys pte pty ptes ptys rd rt sep sept "
    "seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
_CAPITALISED = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_TITLES = (  # have a name behind them
    "adj adm adv alex asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec "
    "ens ft gen gov govs hon insp invt jos lieut lt maj mfg mlle mme mr mrs ms msgr mt mtg natl "
    "pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt supts treas vs wm"
)
_NUMBERED = "art ca fig figs no nos op pp prop"
_STARTERS = (  # behind a letter and a dot they begin a new sentence
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    "Many More Now Once One Other Our She Since So Some Such That The Their Then There These They "
    "This We What When While Yet You"
)
# for those who cut simple pieces without these rules
TWO_WORDS = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])
ABBREVIATIONS = frozenset(
    f"{_MONTHS_STATES_FIRMS} {_CAPITALISED.lower()} {_TITLES} {_NUMBERED}".split()
)
_FINAL = (
    f"(?:(?i:{_choice(_MONTHS_STATES_FIRMS)})|{_choice(_CAPITALISED + ' ' + _CAPITALISED.upper())}"
    "|(?i:ph|ed)\\.[dD])\\."
)
_STARTER = "M[rRsS]\\.|" + "|".join(
    word[0] + (f"(?i:{word[1:]})" if word[1:] else "") for word in _STARTERS.split()
)
_TELEPHONE = (
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
    r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_MIXED_FRACTION = f"(?:[{_D}]{{1,4}}[- \xa0])?[{_D}]{{1,4}}\\\\?[/\u2044][{_D}]{{1,4}}"


def _plain(text: str) -> str:
    """As it stands, soft hyphens taken out, spaces that may not part and brackets by name."""
    if "\xad" in text:
        text = text.replace("\xad", "") or "-"
    text = text.lower().replace(" ", "\xa0")
    for bracket, name in _BRACKETS.items():
        text = text.replace(bracket, name)
    return text


def _apostrophe(text: str) -> str:
    return _plain(re.sub("\x92|\u2019|&apos;", "'", text))


def _quotes(text: str) -> str:
    return "".join(_QUOTES.get(char, text[position]) for position, char in enumerate(shape(text)))


def _const(value: str) -> Callable[[str], str]:
    return lambda text: value


# (token, context behind it, how it is written)
_Rule = tuple[str, str, Callable[[str], str]]
_RULES: tuple[_Rule, ...] = (
    # two words written as one
    *((first, second, _plain) for first, second in (
        ("(?i:can)", "(?i:not)"), ("(?i:gon)", "(?i:na)"), ("(?i:got)", "(?i:ta)"),
        ("(?i:lem)", "(?i:me)"), ("(?i:gim)", "(?i:me)"), ("(?i:wan)", "(?i:na)"),
        ("'[tT]", "(?i:is|was)"),
    )),
    (f"[{_A}]*[A-MO-Za-mo-z]", f"[nN]{_ANY_APOS}[tT]", _plain),
    ("'(?:[sSdDmM]|(?i:ll|re|ve))", f"(?:[^{_A}]|$)", _apostrophe),
    ("(?:\u2019|&apos;)(?:[sSdDmM]|(?i:ll|re|ve))", "", _apostrophe),
    (_WORD, _ENDING, _plain),
    # abbreviations that may end a sentence: what follows them counts, the end of the text too
    (_FINAL, ".?$", _plain),
    # words
    (_WORD, "", _plain),
    (_THING, "", _plain),
    (_GLUED, "", _plain),
    (_FINAL, f".[^{_QUOTE}]?", _plain),
    (_COMPOUND, "", _plain),
    ("(?i:anti|pro)-", "", _plain),
    (_COMPANY, "", lambda text: _plain(re.sub("(?i)&amp;", "&", text))),
    # words with an apostrophe
    (f"[A-HJ-XZn]{_ANY_APOS}(?:[{_L}]|{_ENTITY}){_LETTERS}+", "", _plain),
    (f"{_LETTERS}+[aeiouyAEIOUY]{_ANY_APOS}[aeiouA-Z]{_LETTERS}*", "", _plain),
    (f"(?i:cap{_APOS}n|nat{_APOS}l|ol{_APOS}|somethin{_APOS}|dunkin{_APOS})", "", _plain),
    ("(?i:c'mon|e'er|ev'ry|li'l|s'mores)", "", _plain),
    (f"[oO]{_ANY_APOS}[oO]", "", _plain),
    (f"[dDlLjJ]{_APOS}", "", _plain),
    (f"[yY]{_APOS}", f"{_LETTERS}", _plain),
    (f"{_APOS}(?i:em|n{_APOS}|till?|cause|[2-9]0s)", "", _plain),
    ("'[nN]", "(?:[ \t\xa0]|$)", _plain),
    ("(?:\u2019|&apos;)[nN]", "", _plain),
    (f"{_APOS}[0-9][0-9]", _END, _plain),
    (f"[nN]{_ANY_APOS}[tT]", f"(?:[^{_A}]|$)", _apostrophe),
    # numbers
    (_NUMBER, "", _plain),
    (f"[{_D}]{{1,2}}[-/][{_D}]{{1,2}}[-/][{_D}]{{2,4}}", "", _plain),
    (_MIXED_FRACTION, "", _plain),
    (_TELEPHONE, "", _plain),
    (f"{_SLASHED}(?:\\\\?/{_SLASHED}){{1,2}}", "", _plain),
    ("[A-Z]+\\$", "", _plain),
    # abbreviations
    (f"(?i:{_choice(_TITLES)})\\.", "", _plain),
    (f"(?i:{_choice(_NUMBERED)})\\.", f"{_SPACE}?[{_D}]", _plain),
    (f"{_ACRONYM}\\.", "", _plain),
    (f"[{_A}]", f"\\.{_SPACE}+(?:{_STARTER}|{_TAG}){_END}", _plain),
    ("[A-HJ-Za-z]", f"\\.{_SPACE}*$", _plain),  # there it depends on the next caption
    (f"[{_A}]\\.", "", _plain),
    (f"(?:{_THING}|{_COMPOUND}|{_WORD}|{_GLUED}|{_ACRONYM}|{_COMPANY})\\.", "[,;:\u3001]", _plain),
    ("(?i:[cf]#|c\\+\\+)", "", _plain),
    # the web
    (f"(?i:https?)://{_URL_CHAR}]+{_LAST}", "", str.lower),
    (f"(?:{_WWW}|{_SITE})(?:/{_URL_CHAR}]+{_LAST})?", "", str.lower),
    (_MAIL, "", str.lower),
    (f"[{_L}{_D}]+(?:\\.[{_L}{_D}]+)*\\.(?i:{_EXTENSION})", f"(?:[.?!,]|{_END})", _plain),
    (f"#[{_L}{_M}]+|@[{_A}_][{_A}0-9_]*", "", _plain),
    # markup
    (_TAG, "", lambda text: text.lower().replace(" ", "\xa0")),
    *((f"&(?i:{name});", "", _const(value)) for name, value in (
        ("lt", "<"), ("gt", ">"), ("amp", "&"), ("quot", "''"), ("nbsp", ""),
        ("[mn]dash", "--"),
    )),
    ("&(?i:apos);", "", _apostrophe),
    ("&#[0-9]+;", "", _plain),
    ("-(?i:[lr][rcs]b)-", "", _plain),
    # faces
    ("[<>]?[:;=][-o*']?[()]", "(?:[^A-Za-z0-9]|$)", _plain),
    ("[<>]?[:;=][-o*']?[][{@DOPdp|\\\\]", "(?:[^A-Za-z0-9]|$)", str.lower),
    (f"{_EYE}_{_EYE}|\\({_EYE}[_.]?{_EYE}\\)|\\([\\^x=~<>']-[\\^x=~<>'`]\\)", "", _plain),
    # runs of one mark
    ("\\.{3,5}|\\.(?:[ \xa0]\\.){2,4}", "", _const("...")),
    ("[!?]+", "", _plain),
    ("-{2,4}", "", _const("--")),
    ("-{5,}|_+|@+|\\*+|#+|<<|>>|(?:\\\\\\*)+|\xb2+|\u2080+", "", _plain),
    ("''|\"|[`\u2018\u2019\u201c\u201d\u203a\u201e]{1,2}", "", _quotes),
)  # fmt: skip

_ALONE_STANDING = re.compile(f"[{_A}]+(?=[ \t]|$)")
_SPACES = re.compile(f"{_SPACE}*")
_LONGEST = re.compile("".join(f"(?=(({token}){context})|)" for token, context, _ in _RULES))


def lex(text: str) -> list[str]:
    """The words of `text`, taken as one line with a new sentence behind it."""
    marks = text if text.isascii() and text.isprintable() else shape(text)
    position, words = 0, []
    while position < len(marks):
        char = marks[position]
        if char in " \t":  # a run of spaces: a word cannot begin inside it
            position = _SPACES.match(marks, position).end()  # type: ignore[union-attr]
            continue
        plain = _ALONE_STANDING.match(marks, position)
        if plain is not None and (word := plain[0].lower()) not in TWO_WORDS:
            words.append(word)  # no rule reaches farther
            position = plain.end()
            continue
        spans = _LONGEST.match(marks, position).regs  # type: ignore[union-attr]
        rule, reach = -1, position
        for number in range(1, len(spans), 2):
            if spans[number][1] > reach:
                rule, reach = number, spans[number][1]
        if rule < 0:
            if char not in "\xa0\u2000\0":
                words.append(_ALONE.get(char, text[position]).lower())
            position += 1
        else:
            end = spans[rule + 1][1]
            words.append(_RULES[rule // 2][2](text[position:end]))
            position = end
    if words:
        words[-1] = words[-1].rstrip()
    return [word for word in words if word not in _REMOVED]
