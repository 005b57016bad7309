/// Finds the name that someone probably meant.
public enum Spelling {
    /// The candidate nearest to `word`, or nil where none is near enough to be a typing error. A candidate that ends in
    /// `word` (`db.password` for `password`) is near whatever its length.
    public static func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
        var best: (name: String, distance: Int)?
        let limit = max(1, word.utf8.count / 3)
        for candidate in candidates.sorted() where candidate != word {
            let distance: Int
            if candidate.hasSuffix("." + word) || word.hasSuffix("." + candidate) {
                distance = 1
            } else if abs(candidate.utf8.count - word.utf8.count) > limit {
                // Too far without a look: a word may be as long as somebody writes it.
                continue
            } else {
                distance = self.distance(Array(word.lowercased().utf8), Array(candidate.lowercased().utf8))
            }
            if distance <= limit, distance < best?.distance ?? .max { best = (candidate, distance) }
        }
        return best?.name
    }

    /// ` (did you mean "…"?)` or nothing.
    static func hint(for word: String, among candidates: some Sequence<String>) -> String {
        nearest(to: word, among: candidates).map { " (did you mean \"\($0)\"?)" } ?? ""
    }

    /// Insertions, deletions, substitutions and swaps of neighbours.
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var beforePrevious: [Int] = []
        var previous = Array(0...right.count)
        for (row, a) in left.enumerated() {
            var current = [row + 1]
            for (column, b) in right.enumerated() {
                var cost = min(previous[column + 1], current[column]) + 1
                cost = min(cost, previous[column] + (a == b ? 0 : 1))
                if row > 0, column > 0, a == right[column - 1], left[row - 1] == b {
                    cost = min(cost, beforePrevious[column - 1] + 1)
                }
                current.append(cost)
            }
            (beforePrevious, previous) = (previous, current)
        }
        return previous[right.count]
    }
}
