import Foundation
import HostSystem
import TestSupport
import Testing

@Suite struct XMLReaderTests {
    @Test("elements, text and prefixes")
    func tree() throws {
        let root = try XMLReader.parse(Array("<a xmlns:s='u'><s:b> x &amp; y </s:b><b/><c>é</c></a>".utf8))
        #expect(root.name == "a")
        #expect(root.children("b").map(\.text) == [" x & y ", ""])
        #expect(root.text(of: "c") == "é")
    }

    @Test(
        "bombs, external entities and whatever is no XML are refused",
        arguments: [
            (
                "<!DOCTYPE l [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><l>&b;</l>",
                XMLReader.Problem.documentType
            ),
            ("<!DOCTYPE l SYSTEM 'file:///etc/passwd'><l/>", .documentType),
            ("<!DOCTYPE l [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><l>&x;</l>", .documentType),
            (String(repeating: "<a>", count: 40), .tooDeep),
            ("<a>" + String(repeating: "<b/>", count: 300) + "</a>", .tooMany),
            ("<a>" + String(repeating: "x", count: 9000) + "</a>", .tooLarge),
        ])
    func bombs(text: String, expected: XMLReader.Problem) {
        #expect(throws: expected) { try XMLReader.parse(Array(text.utf8), limit: 8000, elements: 200) }
    }

    @Test(
        "what is malformed is refused",
        arguments: ["", "   ", "<a>", "<a></b>", "<html><br></html>", "<a>&undefined;</a>", "<a>\u{1}</a>"])
    func malformed(text: String) throws {
        let problem = try #require(throws: XMLReader.Problem.self) { try XMLReader.parse(Array(text.utf8)) }
        guard case .malformed = problem else {
            Issue.record("\(problem)")
            return
        }
    }
}

@Suite struct FolderStoreTests {
    let scratch: ScratchDirectory
    let store: FolderStore
    let stop = StopFlag.bounded()

    init() throws {
        scratch = try ScratchDirectory()
        try scratch.write("store/a.tar.zst", seededBytes(200_000))
        try scratch.write("store/deep/er/b c+é.tar", "inside")
        try scratch.write("outside", "not ours")
        try Files.symlink(target: "a.tar.zst", at: scratch("store/latest"))
        try Files.symlink(target: "../outside", at: scratch("store/out"))
        try Files.symlink(target: scratch("outside"), at: scratch("store/absolute"))
        try Files.symlink(target: "..", at: scratch("store/up"))
        mkfifo(scratch("store/pipe"), 0o600)
        store = FolderStore(folder: scratch("store"))
    }

    @Test("regular files below it are listed, with links that stay inside")
    func list() throws {
        #expect(
            try store.list(prefix: "", stop: stop).map(\.key).sorted() == ["a.tar.zst", "deep/er/b c+é.tar", "latest"])
        #expect(try store.list(prefix: "deep/e", stop: stop).map(\.key) == ["deep/er/b c+é.tar"])
        #expect(throws: FolderStore.Refusal.self) {
            try FolderStore(folder: scratch("none")).list(prefix: "", stop: stop)
        }
    }

    @Test(
        "nothing outside and nothing but regular files can be read",
        arguments: ["out", "absolute", "up/outside", "../outside", "pipe", "deep"])
    func refused(key: String) throws {
        #expect(throws: FolderStore.Refusal.self) { try store.read(key: key, limit: 100, stop: stop) }
    }

    @Test("bytes, from an offset too")
    func bytes() throws {
        let object = try #require(try store.stat(key: "a.tar.zst", stop: stop))
        #expect(object.size == 200_000)
        #expect(
            try store.open(object, memory: ByteCount(64 << 10), stop: stop) { _ in }.readAll() == seededBytes(200_000))
        let tail = try store.open(object, from: 199_000, memory: ByteCount(64 << 10), stop: stop) { _ in }
        #expect(try tail.readAll() == Array(seededBytes(200_000)[199_000...]))
        #expect(try store.stat(key: "none", stop: stop) == nil)
        #expect(try store.read(key: "none", limit: 1, stop: stop) == nil)
        #expect(throws: FolderStore.Refusal.tooLarge(scratch("store/a.tar.zst"), limit: 10)) {
            try store.read(key: "a.tar.zst", limit: 10, stop: stop)
        }
    }

    @Test(
        "a file replaced, cut or grown since it was chosen is refused, in the middle too",
        arguments: ["replace", "truncate", "append"])
    func changed(how: String) throws {
        let object = try #require(try store.stat(key: "a.tar.zst", stop: stop))
        let reader = try store.open(object, memory: ByteCount(64 << 10), stop: stop) { _ in }
        _ = try reader.nextBytes()
        let path = scratch("store/a.tar.zst")
        switch how {
        case "replace": try scratch.write("store/a.tar.zst", seededBytes(200_000, seed: 2))
        case "truncate": truncate(path, 100_000)
        default: truncate(path, 300_000)
        }
        if how == "replace" {
            // The open file is still the old one: it is whole.
            #expect(try reader.readAll().count == 200_000 - (64 << 10))
        } else {
            #expect(throws: FolderStore.Refusal.replaced(path)) { try reader.readAll() }
        }
        #expect(throws: FolderStore.Refusal.replaced(path)) {
            try store.open(object, memory: ByteCount(64 << 10), stop: stop) { _ in }
        }
    }
}
