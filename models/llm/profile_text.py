"""The profile in an LLM's words: without its reasoning, and without talk to whoever asked."""

import re

_THOUGHT = (
    "think|thinking|thought|thoughts|reason|reasoning|reflection|analysis|scratchpad|seed:think"
)
_END_OF_THOUGHT = re.compile(
    rf"</(?:{_THOUGHT})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>",
    re.IGNORECASE,
)
_START_OF_THOUGHT = re.compile(
    rf"<(?:{_THOUGHT})>|\[THINK\]|◁think▷|<\|channel\|>analysis|<\|begin_of_thought\|>",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
_FENCED = re.compile(r"```\w*\s*\n(.*?)\n?\s*```", re.DOTALL)
_WRITTEN = (
    r"(?:paragraph|profile|summary|description|portrait|overview|text|answer|response|persona"
    r"|analysis|taste|preferences|rewrite|version|draft)"
)
_YES = r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|great|got it|understood)"
_PREAMBLE = re.compile(
    rf"(?:{_YES}[ ,.!:—–-]+)?"
    rf"(?:(?:here(?:'s| is| are)|below is|the following is)\b[^\n:.]{{0,120}}?\b{_WRITTEN}\b"
    rf"[^\n:.]{{0,120}}(?::\s*|\.?\s*\n+)"
    rf"|based on [^\n:]{{0,160}}:\s*\n+"
    rf"|i(?:'ve| have) (?:written|created|prepared)\b[^\n:]{{0,120}}:\s*)"
    rf"|{_YES}(?:[.!:]+|\s*[—–-])\s+(?=\S)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    rf"(?:#+ *[^\n]{{0,80}}|\**(?:[\w' ]{{0,40}} )?{_WRITTEN}:?\**:?)[ \t]*\n+"
    rf"|\*\*(?:[\w' ]{{0,40}} )?{_WRITTEN}:?\*\*:?\s+(?![\s\S]*\*\*)",
    re.IGNORECASE,
)
_FAREWELL = re.compile(
    r"\n\s*(?:-{3,}\s*)?\(?\**(?:(?:please )?let me know|i hope (?:this|that)|feel free"
    r"|would you like|do you want|if you(?:'d| would| want| need)|is there anything|note(?=:)"
    r"|word count|\d+ words)\b[^\n]*\s*\Z",
    re.IGNORECASE,
)
_MUSING = re.compile(
    r"(?:(?:okay|ok|alright|hmm+|well|so|right|first|let me see|wait)[ ,.:…-]+)*"
    r"(?:(?:the )?user (?:wants|asks|asked|is asking|has asked|needs|requested|would like)\b"
    r"[^.\n]{0,60}\b(?:me|one|a|an)\b[^.\n]{0,40}\b(?:paragraph|profile|summary|description|text)"
    r"|(?:i need to|i should|i have to|i must|let me|we need to) (?:write|produce|look|think|analy"
    r"|count|start|create|describe|go through|figure|consider)"
    r"|thinking process)",
    re.IGNORECASE,
)


def without_reasoning(text: str) -> str | None:
    """Drop what a model thought before its answer; None if it never came to one."""
    *_, answer = _END_OF_THOUGHT.split(text)
    if _START_OF_THOUGHT.search(answer):
        answer = _START_OF_THOUGHT.split(answer)[0]
        if not answer.strip():
            return None
    answer = _TOKEN.sub("", answer).strip()
    return None if _MUSING.match(answer) else answer


def without_talk(text: str) -> str:
    """Drop preamble, heading, farewell and a fence around the whole."""
    fenced = _FENCED.fullmatch(text.strip())
    text = (fenced[1] if fenced else text).strip()
    for pattern in (_PREAMBLE, _HEADING):
        found = pattern.match(_plain(text))
        text = text[found.end() :].strip() if found else text
    while found := _FAREWELL.search(_plain(text)):
        text = text[: found.start()].strip()
    quoted = len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2
    return text[1:-1].strip() if quoted else text


def _plain(text: str) -> str:
    """The same characters, with straight apostrophes."""
    return text.replace("’", "'")
