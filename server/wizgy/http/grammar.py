r"""The ABNF of RFC 9110 and RFC 9112, each rule above the bytes pattern that implements it.

Rules of this file:

- Patterns match bytes and are used with ``fullmatch`` only: a prefix that matches proves nothing. The exceptions are
  `forwarded_element` and `forwarded_pair`, which read a list from one delimiter to the next.
- Classes are spelled out. ``\d``, ``\w`` and ``\s`` mean other things for text than for bytes, and ``int()``
  takes signs, underscores, spaces and other scripts' digits.
- Each repetition ends where a byte outside of its class stands, so that no input makes a pattern backtrack
  more than once over what it read: matching is linear.
"""

from __future__ import annotations

import re

# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"  # noqa: ERA001
#         / DIGIT / ALPHA                                                        RFC 9110 section 5.6.2
TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# token = 1*tchar                                                                RFC 9110 section 5.6.2
TOKEN = TCHAR + rb"+"

# field-vchar = VCHAR / obs-text, with SP and HTAB between them                   RFC 9110 section 5.5
# CR, LF, NUL and every other control byte but HTAB are outside.
FIELD_CONTENT = rb"[\t\x20-\x7e\x80-\xff]"

# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE                        RFC 9110 section 5.6.4
QUOTED_STRING = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'

# request-line = method SP request-target SP HTTP-version                        RFC 9112 section 3
# HTTP-version = "HTTP/" DIGIT "." DIGIT                                         RFC 9112 section 2.3
# request-target here is any VCHAR but "#", which starts a fragment and is never sent: browsers send a few
# characters more than RFC 3986 has, and none of those can be mistaken for a delimiter of the message.
request_line = re.compile(rb"(" + TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])")

# absolute-form = scheme "://" authority path-abempty [ "?" query ]              RFC 9112 section 3.2.2
absolute_form = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([/?][\x21-\x7e]*)?")

# h16 = 1*4HEXDIG                                                                RFC 3986 section 3.2.2
# ls32 = ( h16 ":" h16 ) / IPv4address
H16 = rb"[0-9A-Fa-f]{1,4}"
DEC_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
LS32 = rb"(?:" + H16 + rb":" + H16 + rb"|" + DEC_OCTET + rb"(?:\." + DEC_OCTET + rb"){3})"

# IPv6address =                            6( h16 ":" ) ls32                     RFC 3986 section 3.2.2
#             /                       "::" 5( h16 ":" ) ls32
#             / [               h16 ] "::" 4( h16 ":" ) ls32
#             / [ *1( h16 ":" ) h16 ] "::" 3( h16 ":" ) ls32
#             / [ *2( h16 ":" ) h16 ] "::" 2( h16 ":" ) ls32
#             / [ *3( h16 ":" ) h16 ] "::"    h16 ":"   ls32
#             / [ *4( h16 ":" ) h16 ] "::"              ls32
#             / [ *5( h16 ":" ) h16 ] "::"              h16
#             / [ *6( h16 ":" ) h16 ] "::"
# From the third line on: the most groups before the gap, less one, and what follows it.
IPV6_ADDRESS = rb"|".join(
    [
        rb"(?:%b:){6}%b" % (H16, LS32),
        rb"::(?:%b:){5}%b" % (H16, LS32),
        *(rb"(?:(?:%b:){0,%d}%b)?::(?:%b:){%d}%b" % (H16, most, H16, H16, 4 - most, LS32) for most in range(5)),
        rb"(?:(?:%b:){0,5}%b)?::%b" % (H16, H16, H16),
        rb"(?:(?:%b:){0,6}%b)?::" % (H16, H16),
    ]
)

# Host = uri-host [ ":" port ]                                                   RFC 9110 section 7.2
# uri-host = IP-literal / IPv4address / reg-name                                 RFC 3986 section 3.2.2
# IP-literal = "[" IPv6address "]" here: IPvFuture has no version yet.
# reg-name = *( unreserved / pct-encoded / sub-delims ), and not empty here: runs of plain characters between the
# percent-encoded ones, so that the usual name is one run.
REG_CHAR = rb"[A-Za-z0-9._~!$&'()*+,;=\-]"
host = re.compile(
    rb"(?:\[(?:" + IPV6_ADDRESS + rb")\]"
    rb"|(?!:|\Z)" + REG_CHAR + rb"*(?:%[0-9A-Fa-f]{2}" + REG_CHAR + rb"*)*)(?::[0-9]{0,5})?"
)

# field-line = field-name ":" OWS field-value OWS                                RFC 9112 section 5
field_line = re.compile(rb"(" + TOKEN + rb"):(" + FIELD_CONTENT + rb"*)")

# *( field-line CRLF )                                                           RFC 9112 section 2.1
field_lines = re.compile(rb"(?:" + TOKEN + rb":" + FIELD_CONTENT + rb"*\r\n)*")

# A byte that can stand nowhere in a head: a control byte, a bare CR or a bare LF   RFC 9112 section 2.2
# A CR at the very end of what has come so far may still be followed by its LF.
forbidden_in_head = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")

# Content-Length = 1*DIGIT                                                       RFC 9110 section 8.6
# 18 digits are more than any disk holds and fit in 64 bits for whoever reads the request next.
content_length = re.compile(rb"[0-9]{1,18}")

# chunk-size = 1*HEXDIG                                                          RFC 9112 section 7.1
# chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )       RFC 9112 section 7.1.1
# 16 digits are what 64 bits hold.
chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*"
    + TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + TOKEN
    + rb"|"
    + QUOTED_STRING
    + rb"))?)*)"
)

# status-code SP [ reason-phrase ]                                               RFC 9112 section 4
# 1xx are not final answers, so an application cannot give one; RFC 9110 section 15 ends the range at 599.
status = re.compile(rb"([2-5][0-9]{2}) " + FIELD_CONTENT + rb"*")

# field-name = token                                                             RFC 9110 section 5.1
field_name = re.compile(TOKEN)

# field-value                                                                    RFC 9110 section 5.5
field_value = re.compile(FIELD_CONTENT + rb"*")

# forwarded-pair = token "=" ( token / quoted-string )                           RFC 7239 section 4
# forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] ), and Forwarded = 1#forwarded-element
# In two steps, as only the last elements count: where elements begin and end, which only quotes can hide ...
forwarded = re.compile(rb'[^"]*(?:' + QUOTED_STRING + rb'[^"]*)*')
forwarded_element = re.compile(rb'[^",]*(?:' + QUOTED_STRING + rb'[^",]*)*')
# ... and one pair, or none, with the delimiter after it. White space around ";" is not in the RFC; proxies write it.
forwarded_pair = re.compile(
    rb"(?:(" + TOKEN + rb")=(?:(" + TOKEN + rb")|(" + QUOTED_STRING + rb")))?[ \t]*(;|\Z)[ \t]*"
)

# node = nodename [ ":" node-port ]                                              RFC 7239 section 6
# nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
# node-port = 1*5DIGIT / obfport, and obfnode, obfport = "_" 1*( ALPHA / DIGIT / "." / "_" / "-" )
OBFUSCATED = rb"_[0-9A-Za-z._\-]+"
node = re.compile(
    rb"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\]|(?i:unknown)|"
    + OBFUSCATED
    + rb")(?::(?:([0-9]{1,5})|"
    + OBFUSCATED
    + rb"))?"
)

# A member of X-Forwarded-For has no RFC. It is a node, or an IPv6 address without the brackets and with no port.
bare_ipv6 = re.compile(rb"[0-9A-Fa-f:.]{2,45}")

# path-absolute = "/" [ segment-nz *( "/" segment ) ]                            RFC 3986 section 3.3
# A prefix of paths: no segment is empty, and a segment is any VCHAR but DQUOTE, "#", "/", "?" and the backslash.
path_prefix = re.compile(rb"(?:/[!\x24-\x2e0-\x3e@-\x5b\x5d-\x7e]+)+/?")

# port = *DIGIT, from 1 to 65535, which is for whoever reads it                  RFC 3986 section 3.2.3
port = re.compile(rb"[0-9]{1,5}")
