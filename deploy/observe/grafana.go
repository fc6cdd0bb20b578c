package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const (
	panelWidth  = 8 // of Grafana's 24 columns
	panelHeight = 8 // some 30 pixels each
)

// source is the data source that the dashboard's variable chooses.
var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

// grafana returns the dashboard as Grafana imports it.
func grafana() ([]byte, error) {
	//nolint:staticcheck // the schema recommended instead is for Grafana 12 and later only
	b := dashboard.NewDashboardBuilder("Container Image Manager").
		Uid("imagemanager").Tags([]string{"imagemanager"}).
		Time("now-6h", "now").Refresh("1m").Timezone("browser").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(instanceVariable())
	for _, r := range rows {
		b.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			panel, err := p.builder()
			if err != nil {
				return nil, err
			}
			b.WithPanel(panel)
		}
	}
	d, err := b.Build()
	if err != nil {
		return nil, err
	}
	return indented(d)
}

// instanceVariable chooses hosts; all at first.
func instanceVariable() *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder("instance").Label("Host").Datasource(source).
		Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(imagemanager_ready, instance)")}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Multi(true).IncludeAll(true).AllValue(".*")
}

// builder returns the panel in Grafana's form.
func (p panel) builder() (cog.Builder[dashboard.Panel], error) {
	targets, err := p.targets()
	if err != nil {
		return nil, err
	}
	switch p.draw {
	case number:
		return stat.NewPanelBuilder().Title(p.title).Datasource(source).Targets(targets).
			Span(panelWidth).Height(panelHeight).Thresholds(redFrom(p.limit)), nil
	case states:
		return statetimeline.NewPanelBuilder().Title(p.title).Datasource(source).Targets(targets).
			Span(panelWidth).Height(panelHeight).ShowValue(common.VisibilityModeNever).
			ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
			Thresholds(redFrom(1)), nil
	default:
		return p.overTime(targets), nil
	}
}

// overTime draws the panel's values over time.
func (p panel) overTime(targets []cog.Builder[variants.Dataquery]) *timeseries.PanelBuilder {
	b := timeseries.NewPanelBuilder().Title(p.title).Unit(p.unit).Datasource(source).Targets(targets).
		Span(panelWidth).Height(panelHeight).Min(0).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).
			Sort(common.SortOrderDescending))
	if p.draw == stacked {
		b.FillOpacity(30).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal)).
			OverrideByName("capacity", notStacked)
	}
	if p.limit > 0 {
		b.Thresholds(redFrom(p.limit)).ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().
			Mode(common.GraphThresholdsStyleModeLine))
	}
	return b
}

// notStacked draws the line of the capacity, up to which the workers are stacked.
var notStacked = []dashboard.DynamicConfigValue{
	{Id: "custom.stacking", Value: map[string]string{"mode": "none"}},
	{Id: "custom.fillOpacity", Value: 0},
}

func redFrom(limit float64) *dashboard.ThresholdsConfigBuilder {
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).
		Steps([]dashboard.Threshold{{Color: "green"}, {Color: "red", Value: &limit}})
}

// targets returns the panel's queries in Grafana's form, named A, B, and so on.
func (p panel) targets() ([]cog.Builder[variants.Dataquery], error) {
	var all []cog.Builder[variants.Dataquery]
	for i, q := range p.queries {
		expr, err := ofInstance(q.expr)
		if err != nil {
			return nil, fmt.Errorf("panel %s: %w", p.title, err)
		}
		all = append(all, prometheus.NewDataqueryBuilder().Datasource(source).
			RefId(string(rune('A'+i))).Expr(expr).LegendFormat(q.legend))
	}
	return all, nil
}
