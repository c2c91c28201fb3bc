package midas

// What external tests reach inside for.
var (
	SplitAppMeta = splitAppMeta
	Withhold     = withhold
)

func ValidateItems(items []Item) error {
	req := OrderRequest{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k", GoodsName: "n", GoodsDescription: "d", Items: items}
	return req.validate(Sandbox())
}

func DecodeOrderAnswer(body []byte) (ret int, token, urlParams, reason string) {
	answer, reason := decodeOrderAnswer(body)
	if reason != "" {
		return 0, "", "", reason
	}
	return int(*answer.Ret), answer.Token, answer.URLParams, ""
}

// SplitQuery returns a raw query's parameters in signing order.
func SplitQuery(rawQuery string, plus byte) (Params, error) { return splitQuery(rawQuery, plus) }

// Verify reports whether a raw query is verified, for a path that New would not take.
func Verify(rawQuery, path, appKey string) bool {
	c := &Client{cfg: Config{DeliveryPath: path}, appKey: func() string { return appKey }}
	_, err := c.verify(rawQuery)
	return err == nil
}
