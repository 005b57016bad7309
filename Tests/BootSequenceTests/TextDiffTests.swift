import HostSystem
import TestSupport
import Testing

@testable import BootSequence

@Suite struct TextDiffTests {
    @Test(arguments: [
        ("a\nb\nc\n", "a\nB\nc\n"), ("", "new\n"), ("old\n", ""), ("a\n", "a"),
        ("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "1\n2\nx\n4\n5\n6\n7\n8\n9\n10\ny\n12\n"),
        ("a\na\na\nb\n", "a\nb\na\nb\nc\n"), ("1\n2\n3\n4\n5\n6\n7\n8\n", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"),
    ])
    func patchAcceptsItAndMakesTheNewText(_ old: String, _ new: String) throws {
        let scratch = try ScratchDirectory()
        let diff = TextDiff.unified(old, new, oldName: "x", newName: "x")
        #expect(!diff.isEmpty)
        // patch(1) knows a missing newline by a line of its own; ours is shown at the end of the line instead.
        guard !(old + new).isEmpty, old.isEmpty || old.hasSuffix("\n"), new.isEmpty || new.hasSuffix("\n") else {
            return
        }
        try scratch.write("x", old)
        try scratch.write("x.diff", diff.joined(separator: "\n") + "\n")
        try Program.check(["patch", "-s", "-p0", scratch("x"), scratch("x.diff")])
        let made = (try? FileReading.text(scratch("x"), limit: 1 << 20)) ?? ""
        #expect(made == new)
    }

    @Test func equalTextsHaveNone() { #expect(TextDiff.unified("a\n", "a\n", oldName: "x", newName: "x").isEmpty) }
}
