"""Malformed requests against a live server: each gets an answer that repeats nothing of it, and the server lives on."""

import json
import random
import socket
import struct
import time

import pytest

from .conftest import infer_body

SECRET = b"<script>s3cret</script>"
SEED, COUNT = 7, 200


def lengthed(*elements):
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def image_input(shape, size, **fields):
    return {"name": "images", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": size}} | fields


def wrong_lengths(rng, image):
    """Element lengths, sizes of tensors and the length of the JSON that do not fit."""
    data = lengthed(image, SECRET)
    kind = rng.randrange(6)
    shape, size, text = [2], len(data), None
    if kind == 0:
        length = rng.choice([0, 1, len(image) - 1, len(image) + 1, len(data), 2**31, 2**32 - 1])
        data = struct.pack("<I", length) + data[4:]
    elif kind == 1:
        size = rng.choice([-1, 0, 3, len(data) - 1, len(data) + 1, 2**31, 2**63, 10**30, 1.5, "5", None, True, [1]])
    elif kind == 2:
        data += rng.randbytes(rng.randint(1, 9))
        size = rng.choice([size, len(data)])
    elif kind == 3:
        shape = [rng.choice([1, 3, 64])]
    elif kind == 4:
        data = data[: rng.randrange(len(data))]
        size = rng.choice([size, len(data)])
    else:
        text = rng.choice(["-1", "0", "1e3", " ", "٣", "9" * 400, "0x10", str(rng.randint(1, 60)), "1000000000"])
    head = json.dumps({"inputs": [image_input(shape, size)]}).encode()
    return head + data, text or str(len(head))


def wrong_shapes(rng, image):
    """Shapes, types, names and numbers of tensors that are none of ours."""
    data = lengthed(SECRET)
    values = (None, [], {}, [0], [-1], [2**40], [1, 1], [[1]], ["1"], [1.0], [True], "1", 1, 10**30, [None])
    good = image_input([1], len(data))
    kind = rng.randrange(6)
    head = {"inputs": [good]}
    if kind == 0:
        head["inputs"] = [good | {"shape": rng.choice(values)}]
    elif kind == 1:
        head["inputs"] = [good | {"datatype": rng.choice(["UINT8", "bytes", None, 5, SECRET.decode()])}]
    elif kind == 2:
        head["inputs"] = [good | {"name": rng.choice(["image", "", None, 5, [], {}, SECRET.decode()])}]
    elif kind == 3:
        head["inputs"] = rng.choice([None, [], {}, "x", 5, [good, good], [None], [[good]], [good] * 50])
    elif kind == 4:
        name = rng.choice([SECRET.decode(), None, 5, [], "masks", "error"])
        outputs = [[{"name": name}], [{}], ["boxes"], {"a": 1}, 5, [{"name": "boxes"}] * 2]
        flags = [{"name": "boxes", "parameters": rng.choice([{"binary_data": 1}, [1], {"classification": 3}])}]
        head["outputs"] = rng.choice([*outputs, flags])
    else:
        value = rng.choice([None, [], [2], [-1], ["0.9"], [True], [0.9, 0.9], {"a": 1}, [[0.9]], [10**400], [None]])
        entry = {"name": "score_threshold", "datatype": "FP32", "shape": [1], "data": value}
        head["inputs"] = [good, entry | rng.choice([{}, {"shape": [2]}, {"datatype": "FP64"}])]
    text = json.dumps(head).encode()
    return text + data, str(len(text))


def wrong_json(rng, image):
    """Depths, encodings and kinds of JSON."""
    deep = 10 ** rng.randint(3, 5)
    text = rng.choice(
        [
            b"[" * deep,
            b'{"inputs":' * deep,
            b'{"a":' * deep + b"1" + b"}" * deep,
            b'{"inputs": ' + b"[" * deep + b"]" * deep + b"}",
            SECRET,
            b"\xff\xfe{\x00}\x00",
            b'{"inputs": \xff}',
            b'{"id": ' + b"9" * 5000 + b"}",
            b'{"inputs": NaN}',
            b"null",
            b"[1]",
            b"5",
            b'"' + SECRET + b'"',
            b'{"id": 5, "inputs": []}',
            b'{"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": ["' + SECRET + b'"]}]}',
            rng.randbytes(rng.randint(1, 500)),
            b"{" + b'"a":1,' * 200_000 + b'"b":1}',
        ]
    )
    return text, rng.choice([None, str(len(text))])


def cut(rng, image):
    """A good request that ends too early, or whose image does."""
    data = lengthed(image)
    head = json.dumps({"inputs": [image_input([1], len(data))]}).encode()
    body = head + data
    if rng.random() < 0.5:
        return body[: rng.randrange(len(body) - 1)], str(len(head))
    data = lengthed(image[: rng.randrange(len(image) // 2)])
    head = json.dumps({"inputs": [image_input([1], len(data))]}).encode()
    return head + data, str(len(head))


FAMILIES = (wrong_lengths, wrong_shapes, wrong_json, cut)


def request(body, length, rng=None, path="/v2/models/demo/infer"):
    """The bytes of a request, in chunks if there is a source of chance."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if length is not None:
        head += f"Inference-Header-Content-Length: {length}\r\n"
    if rng is None:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("utf-8", "surrogateescape") + body
    parts, at = [f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()], 0
    while at < len(body):
        part = body[at : at + rng.choice([1, 7, 500, 60_000])] if len(parts) < 30 else body[at:]
        parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        at += len(part)
    return b"".join([*parts, b"0\r\n\r\n"])


def send(port, content, *, end=False):
    """The status and all that comes back, if the client ends its side, too."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(content)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None, answer


def cases(image):
    rng = random.Random(SEED)
    for number in range(COUNT):
        body, length = FAMILIES[number % len(FAMILIES)](rng, image)
        yield request(body, length, rng if number % 8 > 3 else None)


def test_malformed_bodies_are_refused_and_do_no_harm(server, images, found):
    send(server.port, request(images[0], None, path="/predict"))  # what is allocated once
    before = server.memory()
    for number, content in enumerate(cases(images[1])):
        status, answer = send(server.port, content)
        assert status == 400, (number, content[:600], answer)
        assert b"s3cret" not in answer
        head, _, text = answer.partition(b"\r\n\r\n")
        assert b"nosniff" not in head or list(json.loads(text)) == ["error"]
    assert server.memory() - before <= 20
    status, answer = send(server.port, request(images[0], None, path="/predict"))
    assert (status, answer.partition(b"\r\n\r\n")[2].decode()) == (200, found[0].to_json())


@pytest.mark.parametrize("kind", ["image", "tensor", "chunks"])
def test_large_bodies_are_forgotten_once_they_are_refused(server, kind):
    """The last kind is too large, which comes out in the end."""
    memory = []
    for _ in range(12):
        for content in (b"GIF89a" + bytes(10_000_000), bytes(10_000_000)):
            body, headers = infer_body([content]) if kind == "tensor" else (content, {})
            path = "/v2/models/demo/infer" if kind == "tensor" else "/predict"
            status, _, _ = server.ask(path, iter([body, body, b"x"]) if kind == "chunks" else body, headers)
            assert status == (413 if kind == "chunks" else 400)
        memory.append(server.memory())
    assert memory[-1] - memory[1] <= 20


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_ends_in_the_middle_is_told(server, images, chunked):
    content = request(images[0], None, random.Random(SEED) if chunked else None, path="/predict")
    start = content.index(b"\r\n\r\n") + 4
    for length in (start, start + 1, start + 1000, len(content) - 1):
        status, answer = send(server.port, content[:length], end=True)
        assert (status, b"Invalid HTTP request received." in answer) == (400, True)


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n12345",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\ns3cret\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123456789\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n12345",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX: " + b"s3cret" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server, content):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(content)
        answer = connection.recv(65536)
    assert answer.split(b" ", 2)[1] in (b"400", b"413", b"501"), answer
    assert b"s3cret" not in answer


def test_a_client_that_stops_in_the_middle_takes_nothing(server, images):
    for _ in range(70):  # more than may wait
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request(images[0], None, path="/predict")[:-1000])
    end = time.monotonic() + 20
    while (status := server.ask("/predict", images[0])[0]) == 503 and time.monotonic() < end:
        time.sleep(0.05)  # until the server has noticed
    assert status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_while_it_arrives(server, chunked):
    """The client goes on sending until it is answered, and is answered before the end."""
    kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 30000000000"
    part = bytes(1_000_000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + kind + b"\r\n\r\n")
        sent, answer = 0, b""
        while not answer.endswith(b"}") and sent < 60:
            connection.settimeout(20)
            connection.sendall(b"f4240\r\n" + part + b"\r\n" if chunked else part)
            sent += 1
            connection.settimeout(0.02)
            try:
                answer += connection.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"the body has more than 20000000 bytes"}' in answer
    assert sent < (60 if chunked else 30)
