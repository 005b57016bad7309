/// A unified diff of two small texts, as diff -u prints it, with three lines of context.
public enum TextDiff {
    private static let context = 3

    /// Empty where both are equal.
    public static func unified(_ old: String, _ new: String, oldName: String, newName: String) -> [String] {
        if old == new { return [] }
        let before = lines(old)
        let after = lines(new)
        var removed: Set<Int> = []
        var inserted: Set<Int> = []
        for change in after.difference(from: before) {
            switch change {
            case .remove(let offset, _, _): removed.insert(offset)
            case .insert(let offset, _, _): inserted.insert(offset)
            }
        }

        // One edit script of all lines: kept, removed, inserted.
        var script: [(mark: Character, text: String, old: Int, new: Int)] = []
        var i = 0
        var j = 0
        while i < before.count || j < after.count {
            if i < before.count, removed.contains(i) {
                script.append(("-", before[i], i, j))
                i += 1
            } else if j < after.count, inserted.contains(j) {
                script.append(("+", after[j], i, j))
                j += 1
            } else {
                script.append((" ", before[i], i, j))
                i += 1
                j += 1
            }
        }

        var result = ["--- " + oldName, "+++ " + newName]
        var position = 0
        while let first = script[position...].firstIndex(where: { $0.mark != " " }) {
            let start = max(position, first - context)
            var end = first
            var quiet = 0
            while end < script.count, quiet <= 2 * context {
                quiet = script[end].mark == " " ? quiet + 1 : 0
                end += 1
            }
            end -= max(0, quiet - context)
            let hunk = script[start..<end]
            let oldCount = hunk.count { $0.mark != "+" }
            let newCount = hunk.count { $0.mark != "-" }
            let oldStart = script[start].old + (oldCount > 0 ? 1 : 0)
            let newStart = script[start].new + (newCount > 0 ? 1 : 0)
            result.append("@@ -\(oldStart),\(oldCount) +\(newStart),\(newCount) @@")
            result += hunk.map { "\($0.mark)\($0.text)" }
            position = end
        }
        return result
    }

    private static func lines(_ text: String) -> [String] {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() } else { lines[lines.count - 1] += "\\ (no newline at the end)" }
        return lines
    }
}
