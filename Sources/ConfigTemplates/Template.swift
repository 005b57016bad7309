/// A template that has been read and understood. Immutable; any thread may render it, any number of times.
public struct Template: Sendable {
    public let name: String
    public let language: TargetLanguage
    /// From the header; nil where it names none.
    public let mode: UInt32?
    /// `user:group` from the header; nil where it names none.
    public let owner: String?
    private let nodes: [TemplateNode]

    /// `name` is the path relative to the tree of templates, such as `etc/apache2/sites-available/site.conf.mustache`: it chooses
    /// the language where the header does not, and stands in every message. Throws everything that is wrong at once.
    public init(name: String, source: [UInt8]) throws(TemplateProblems) {
        var parser = TemplateParser(name: name, source: source)
        nodes = parser.parse()
        try parser.problems.throwIfAny()
        self.name = name
        language = parser.header?.language ?? TargetLanguage(path: name)
        mode = parser.header?.mode
        owner = parser.header?.owner
    }

    /// `values` is a map. Every value arrives in the target language exactly as it is, or all that cannot are thrown together,
    /// beside every unknown name. Pure: the same values give the same bytes.
    public func render(_ values: TemplateValue) throws(TemplateProblems) -> RenderedText {
        var renderer = TemplateRenderer(name: name, language: language, values: values)
        return try renderer.render(nodes)
    }
}

public struct RenderedText: Sendable {
    public let bytes: [UInt8]
    /// Where secrets stand in `bytes`, their quoting included, in ascending order.
    public let secretRanges: [Range<Int>]

    public init(bytes: [UInt8], secretRanges: [Range<Int>]) {
        self.bytes = bytes
        self.secretRanges = secretRanges
    }
}
