import Foundation
import HostSystem
import TestSupport
import Testing

@Suite struct OpenTreeTests {
    let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    @Test func symlinkIsNoTree() throws {
        try Files.makeNewDirectory(scratch("real"), mode: 0o755)
        try Files.symlink(target: "real", at: scratch("link"))
        for path in ["link", "link/", "absent"] {
            #expect(throws: HostError.self) { _ = try OpenTree(scratch(path)) }
        }
    }

    @Test func countsEverythingButTheExcluded() throws {
        for name in ["a", "b/c", "b/d", "var/uploads/1", "var/uploads/2", "var/x"] { try scratch.write(name, "x") }
        try Files.symlink(target: "/", at: scratch("root"))
        let tree = try OpenTree(scratch.path)
        #expect(try tree.count(stop: .bounded()) == 10)
        #expect(try tree.count(excluding: ["var/uploads"], stop: .bounded()) == 7)
    }

    @Test func separatedFileKeepsAllButItsInode() throws {
        let old = try scratch.write("old", "text", mode: 0o4750)
        if Host.isSuperuser { try Files.changeOwner(old, owner: 12, group: 34) }
        try Files.makeNewDirectory(scratch("tree"), mode: 0o755)
        try Files.makeNewDirectory(scratch("tree/d"), mode: 0o755)
        try Program.check(["touch", "-d", "2020-01-02T03:04:05.678901234Z", old])
        try Program.check(["chmod", "4750", old])
        try Program.check(["ln", old, scratch("tree/d/f")])
        let before = try #require(try Files.status(old))

        let tree = try OpenTree(scratch("tree"))
        let names = ["d/f", "d/absent", "absent/f", "d"].map { Array($0.utf8) }
        #expect(try tree.separate(names, stop: .bounded()) == 1)
        #expect(try tree.separate(names, stop: .bounded()) == 0)

        let after = try #require(try Files.status(scratch("tree/d/f")))
        #expect(after.inode != before.inode)
        #expect(after.links == 1)
        #expect((after.mode, after.owner, after.group) == (before.mode, before.owner, before.group))
        #expect(after.modified == before.modified)
        #expect(try FileReading.text(scratch("tree/d/f"), limit: 10) == "text")
        #expect(try Files.names(in: scratch("tree/d")) == ["f"])
    }

    @Test func noSymlinkLeadsOut() throws {
        try scratch.write("outside/f", "x")
        try Program.check(["ln", scratch("outside/f"), scratch("outside/g")])
        try Files.makeNewDirectory(scratch("tree"), mode: 0o755)
        try Files.symlink(target: scratch("outside"), at: scratch("tree/d"))
        let inode = try Files.status(scratch("outside/f"))?.inode
        let tree = try OpenTree(scratch("tree"))
        #expect(throws: HostError.self) { try tree.separate([Array("d/f".utf8)], stop: .bounded()) }
        #expect(throws: HostError.self) { try tree.separate([Array("../outside/f".utf8)], stop: .bounded()) }
        #expect(try Files.status(scratch("outside/f"))?.inode == inode)
    }

    @Test func removesFoldersOfOneNameAlone() throws {
        for name in ["p/x", "a/p/y", "a/keep", "b/p"] { try scratch.write(name, "x") }
        try OpenTree(scratch.path).removeDirectories(named: "p", stop: .bounded())
        #expect(try Files.names(in: scratch.path) == ["a", "b"])
        #expect(try Files.names(in: scratch("a")) == ["keep"])
        #expect(try Files.names(in: scratch("b")) == ["p"])
    }
}
