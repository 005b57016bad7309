/// One thing that is wrong with a template, or with a value where a template wants it. The message names values, and never
/// says what they contain.
public struct TemplateProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// The template's name as it was given to `Template`.
    public let file: String
    /// From 1, in the template (not in the rendered text).
    public let line: Int
    public let message: String

    public init(file: String, line: Int, message: String) {
        self.file = file
        self.line = line
        self.message = message
    }

    public var description: String { "\(file):\(line): \(message)" }
}

/// Everything that is wrong with a template, found in one pass, in the order of its lines. Never empty.
public struct TemplateProblems: Error, Sendable, CustomStringConvertible {
    public let problems: [TemplateProblem]

    public init(problems: [TemplateProblem]) { self.problems = problems }

    public var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// Collects problems; one that a loop finds again and again is told once.
struct ProblemList {
    let file: String
    private(set) var problems: [TemplateProblem] = []

    init(file: String) { self.file = file }

    mutating func add(line: Int, _ message: String) {
        let problem = TemplateProblem(file: file, line: line, message: message)
        if !problems.contains(problem) { problems.append(problem) }
    }

    func throwIfAny() throws(TemplateProblems) {
        if problems.isEmpty { return }
        // A stable order by line: sort(by:) alone does not promise to keep the order within one line.
        let ordered = problems.enumerated().sorted { ($0.element.line, $0.offset) < ($1.element.line, $1.offset) }
        throw TemplateProblems(problems: ordered.map(\.element))
    }
}
