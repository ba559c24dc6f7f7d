import random

from gptoss_triton.pages import PagePool, block_name, salt_name


def test_pages_are_given_out_once_and_come_back():
    pool = PagePool(3)
    pages = [pool.take() for _ in range(3)]
    assert sorted(pages) == [0, 1, 2]
    assert pool.take() is None
    pool.release(pages[1])
    assert (pool.free, pool.used) == (1, 2)
    assert pool.take() == pages[1]


def test_named_pages_are_found_until_the_room_is_needed_oldest_first():
    pool = PagePool(2)
    first, second = pool.take(), pool.take()
    pool.name(first, b"first")
    pool.name(second, b"second")
    pool.release(first)
    pool.release(second)
    assert pool.free == 2
    assert pool.share(pool.find(b"first")) == first
    assert pool.take() == second
    assert pool.find(b"second") is None
    assert pool.find(b"first") == first


def test_a_content_keeps_its_first_page():
    pool = PagePool(2)
    first, second = pool.take(), pool.take()
    pool.name(first, b"same")
    pool.name(second, b"same")
    assert pool.find(b"same") == first
    pool.release(second)
    assert pool.take() == second


def test_random_use_never_loses_a_page():
    source = random.Random(3)
    pool, held = PagePool(9), []
    for turn in range(20_000):
        if held and source.random() < 0.5:
            pool.release(held.pop(source.randrange(len(held))))
        elif source.random() < 0.5 and (page := pool.find(b"%d" % source.randrange(6))) is not None:
            held.append(pool.share(page))
        elif (page := pool.take()) is not None:
            held.append(page)
            pool.name(page, b"%d" % (turn % 6))
        assert pool.used == len(set(held))
    for page in held:
        pool.release(page)
    assert pool.free == 9


def test_names_depend_on_everything_before():
    assert block_name(salt_name("a"), [1, 2]) != block_name(salt_name("b"), [1, 2])
    assert block_name(salt_name("a"), [1, 2]) == block_name(salt_name("a"), (1, 2))
    assert block_name(block_name(b"x", [1]), [2]) != block_name(b"x", [1, 2])
